"""Vocoders on disk: the same output back, and clear words about damage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechadapt.core.errors import CheckpointError
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.vocoder import Speech
from speechadapt.restoration.vocoder_folder import (
    load_vocoder,
    make_vocoder,
    read_vocoder,
    save_vocoder,
)
from speechadapt.restoration.wavefit import WaveFitConfig

SPEECH = Speech(6, 50.0, 2000)
ISTFT = IstftConfig(width=8, layers=1)
WAVEFIT = WaveFitConfig(
    upsample=1,
    factors=(5, 4, 2),
    channels=(8, 6, 4),
    down_channels=(3, 4, 8),
    width=8,
    layers=1,
    initial="istft",
    istft=ISTFT,
)


@pytest.mark.parametrize("config", [ISTFT, WAVEFIT, replace(WAVEFIT, initial="envelope", bands=5)])
def test_a_saved_vocoder_gives_the_same_waveform(config, tmp_path: Path) -> None:
    vocoder = make_vocoder(SPEECH, config)
    save_vocoder(vocoder, tmp_path, {"layer": 3})
    again = load_vocoder(tmp_path)
    frames = torch.randn(1, 5, 6)
    wanted = vocoder(frames, random=torch.Generator().manual_seed(0))[-1]
    found = again(frames, random=torch.Generator().manual_seed(0))[-1]
    assert torch.equal(wanted, found)
    assert again.config == config
    assert again.speech == SPEECH
    assert not again.training
    assert not any(one.requires_grad for one in again.parameters())
    assert read_vocoder(tmp_path)["features"] == {"layer": 3}


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="was to be read as a vocoder"):
        load_vocoder(tmp_path)
    vocoder = make_vocoder(SPEECH, ISTFT)
    save_vocoder(vocoder, tmp_path, {})
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors of .* cannot be used"):
        load_vocoder(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(facts | {"kind": "parrot"}))
    with pytest.raises(CheckpointError, match="of the kind 'parrot'; known are istft and wavefit"):
        load_vocoder(tmp_path)


def test_numbers_that_are_none_are_not_saved(tmp_path: Path) -> None:
    vocoder = make_vocoder(SPEECH, ISTFT)
    next(vocoder.parameters()).data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="Nothing was saved"):
        save_vocoder(vocoder, tmp_path / "new", {})
    assert not (tmp_path / "new").exists()
