from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from speechadapt.core.errors import CheckpointError
from speechadapt.decoders.weights import read_tensors


def test_tensors_of_a_prefix_are_read_and_no_others(tmp_path):
    save_file({"a.x": torch.ones(2), "b.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path, "a.")
    assert list(found) == ["a.x"]
    assert torch.equal(found["a.x"], torch.ones(2))


def test_tensors_are_found_across_shards(tmp_path):
    save_file({"a.x": torch.ones(2)}, tmp_path / "one.safetensors")
    save_file({"a.y": torch.zeros(1)}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a.x": "one.safetensors", "a.y": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read_tensors(tmp_path, "a.")) == {"a.x", "a.y"}


def test_a_missing_file_a_missing_name_and_a_damaged_file_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        read_tensors(tmp_path, "a.")
    save_file({"a.x": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no weights named 'lm_head\.\*'"):
        read_tensors(tmp_path, "lm_head.")
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_tensors(tmp_path, "a.")
