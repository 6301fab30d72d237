from __future__ import annotations

import pytest
import torch

from speechadapt.core.errors import CatalogError
from speechadapt.encoders.catalog import families
from speechadapt.encoders.source import fingerprint_folder
from speechadapt.encoders.tiny import write_tiny


@pytest.mark.parametrize("family", list(families()))
def test_a_seed_names_the_weights(family, tmp_path):
    first, same, other = (
        fingerprint_folder(write_tiny(family, tmp_path / name, seed))
        for name, seed in (("first", 0), ("same", 0), ("other", 1))
    )
    assert first == same
    assert first != other


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    write_tiny("w2v_bert", tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_folder_holds_an_ordinary_model(tmp_path):
    write_tiny("whisper", tmp_path / "deep" / "whisper")
    names = {path.name for path in (tmp_path / "deep" / "whisper").iterdir()}
    assert {"config.json", "preprocessor_config.json", "model.safetensors"} <= names


def test_an_unknown_family_is_refused(tmp_path):
    with pytest.raises(CatalogError, match="'conformer'"):
        write_tiny("conformer", tmp_path)
