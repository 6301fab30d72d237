from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.decoders.masked_diffusion.store import Heard, save_folder
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.encoders.source import fingerprint_folder
from speechadapt.models import build
from speechadapt.models.build import load

TINY = {"num_candidates": 2, "num_steps": 2}


@pytest.fixture
def folder(tmp_path: Path, ctc_folder: Path) -> Path:
    """A diffusion decoder for the tiny Conformer, which it names but does not hold."""
    vocabulary = tiny_vocabulary()
    heard = Heard(str(ctc_folder), fingerprint_folder(ctc_folder), "full", 0.1)
    save_folder(tmp_path / "toy", tiny_network(vocabulary, 32), vocabulary, heard, torch.float32)
    return tmp_path / "toy"


def test_a_decoder_is_joined_with_the_encoder_it_names(folder: Path) -> None:
    recogniser = load(folder, **TINY)
    assert recogniser.decoder.name == "masked_diffusion"
    assert recogniser.encoder.family == "w2v_bert"
    assert recogniser.margin_s == 0.1
    clips = [np.sin(np.arange(count) / 9).astype(np.float32) for count in (16000, 9000, 1600)]
    together = recogniser.decode_batch(clips)
    assert [recogniser.decode_batch([one])[0].text for one in clips] == [
        one.text for one in together
    ]
    assert together[0].text
    assert recogniser.decode_batch([np.zeros(0, np.float32)])[0].text == ""


@pytest.mark.parametrize("seconds", [30, 31])
def test_half_a_minute_of_noise_gives_no_text_without_a_flag(folder: Path, seconds: int) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.1, seconds * 16000).astype(np.float32)
    found = load(folder, **TINY).transcribe(noise, 16000)
    assert found.text == "" or found.flags
    assert (seconds == 31) == (found.flags == ("no_speech",))  # only what is cut is searched first


def test_the_encoder_may_lie_elsewhere_but_not_be_another(
    folder: Path, tmp_path: Path, ctc_folder: Path
) -> None:
    moved = shutil.copytree(ctc_folder, tmp_path / "moved")
    assert load(folder, encoder_model=str(moved), **TINY).encoder.dim == 32
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"trained on other weights .* encoder_model=FOLDER"):
        load(folder, encoder_model=str(moved), **TINY)
    with pytest.raises(CatalogError, match=r"'toy' hears with .* Name that model's folder"):
        load(folder, encoder_model="gone", **TINY)


def test_what_the_decoder_was_not_trained_for_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="padding=native was asked of 'toy', which was trained"):
        load(folder, padding="native", **TINY)
    vocabulary = tiny_vocabulary()
    save_folder(tmp_path / "text", tiny_network(vocabulary), vocabulary, None)
    with pytest.raises(CheckpointError, match="'text' holds a model of text alone"):
        load(tmp_path / "text")


def test_frames_of_another_width_are_refused(tmp_path: Path, ctc_folder: Path) -> None:
    vocabulary = tiny_vocabulary()
    heard = Heard(str(ctc_folder), fingerprint_folder(ctc_folder))
    save_folder(tmp_path / "toy", tiny_network(vocabulary, 10), vocabulary, heard)
    with pytest.raises(CheckpointError, match=r"takes frames of width 10, .* gives 32"):
        load(tmp_path / "toy")


def test_the_decoder_alone_means_its_bundled_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "shelf/mini-diffusion")
    monkeypatch.setattr(build, "_PRETRAINED", tmp_path / "shelf")
    for decoder in ("diffusion", "masked_diffusion"):
        assert load(decoder=decoder, **TINY).name == "mini-diffusion"


def test_a_bundled_model_that_did_not_come_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_PRETRAINED", tmp_path)
    with pytest.raises(CatalogError, match="'mini-diffusion', which that means, did not come"):
        load(decoder="diffusion")
