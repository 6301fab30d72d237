"""`tools/package_model.py`: what a bundled folder is said to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import package_model
import pytest
import torch

from speechadapt.core.errors import DataError
from speechadapt.decoders.masked_diffusion.store import Heard, save_folder
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.encoders.source import fingerprint_folder
from speechadapt.encoders.tiny import write_tiny


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled models with one encoder."""
    write_tiny("whisper", tmp_path / "ears")
    monkeypatch.setattr(package_model, "PRETRAINED", tmp_path)
    return tmp_path


def config_of(folder: Path, heard: Heard | None) -> dict[str, Any]:
    vocabulary = tiny_vocabulary()
    network = tiny_network(vocabulary, 32 if heard else 0)
    save_folder(folder, network, vocabulary, heard, torch.float32)
    return dict(json.loads((folder / "config.json").read_text()))


def test_a_diffusion_decoder_is_of_the_family_of_the_encoder_it_names(shelf: Path) -> None:
    heard = Heard("ears", fingerprint_folder(shelf / "ears"))
    found = package_model.families(config_of(shelf / "toy", heard))
    assert found == ("whisper", "masked_diffusion")
    own = json.loads((shelf / "ears/config.json").read_text())
    assert package_model.families(own) == ("whisper", "whisper_ar")


def test_a_diffusion_decoder_whose_encoder_is_not_bundled_is_refused(shelf: Path) -> None:
    for heard in (Heard("gone", "0"), Heard("ears", "0" * 64)):
        with pytest.raises(DataError, match="is not bundled with those weights"):
            package_model.families(config_of(shelf / "toy", heard))
    with pytest.raises(DataError, match="a model of text alone"):
        package_model.families(config_of(shelf / "text", None))
