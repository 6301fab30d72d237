from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from speechadapt.adapters.interop.files import (
    read_pickle,
    read_safetensors,
    read_settings,
    read_weights,
)
from speechadapt.core.errors import CheckpointError


class Hostile:
    """Unpickled without care, it makes a folder."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)


def test_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, made = tmp_path / "pytorch_adapter.bin", tmp_path / "made"
    torch.save({"weight": Hostile(made)}, path)
    with pytest.raises(CheckpointError, match=r"holds something else .* Nothing in it was run"):
        read_pickle(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists(), "the file was harmless, so the test showed nothing"


def test_pickle_is_not_read_unasked(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.bin")
    with pytest.raises(CheckpointError, match=r"only the pickle old\.bin, which is not read unask"):
        read_weights(tmp_path, "new.safetensors", "old.bin")
    read = read_weights(tmp_path, "new.safetensors", "old.bin", allow_pickle=True)
    assert torch.equal(read["weight"], torch.ones(2))


def test_safetensors_win_over_a_pickle(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.bin")
    save_file({"weight": torch.zeros(2)}, tmp_path / "new.safetensors")
    read = read_weights(tmp_path, "new.safetensors", "old.bin", allow_pickle=True)
    assert torch.equal(read["weight"], torch.zeros(2))


@pytest.mark.parametrize("kept", [4, 60, 120])
def test_truncated_safetensors_are_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_file({"weight": torch.ones(16)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors' .* damaged or cut short"):
        read_safetensors(path)


def test_truncated_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.bin"
    torch.save({"weight": torch.ones(16)}, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"adapter\.bin' .* is damaged or holds something"):
        read_pickle(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_value_that_is_not_finite_is_refused_by_name(value: float, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_file({"good": torch.ones(2), "bad": torch.tensor([1.0, value])}, path)
    with pytest.raises(CheckpointError, match=r"1 tensors .* not finite, the first being 'bad'"):
        read_safetensors(path)
    torch.save({"bad": torch.tensor([1.0, value])}, tmp_path / "adapter.bin")
    with pytest.raises(CheckpointError, match=r"not finite, the first being 'bad'"):
        read_pickle(tmp_path / "adapter.bin")


def test_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": "text"}, tmp_path / "adapter.bin")
    with pytest.raises(CheckpointError, match=r"holds a dict of something else"):
        read_pickle(tmp_path / "adapter.bin")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "adapter.safetensors")
    with pytest.raises(CheckpointError, match=r"to hold an adapter, but holds no tensor"):
        read_safetensors(tmp_path / "adapter.safetensors")


def test_missing_and_damaged_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'adapter_config\.json' was looked for"):
        read_settings(tmp_path / "adapter_config.json")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"to be read as JSON, but"):
        read_settings(tmp_path / "adapter_config.json")
    (tmp_path / "adapter_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"JSON object, but holds a list"):
        read_settings(tmp_path / "adapter_config.json")
    with pytest.raises(CheckpointError, match=r"holds neither a\.safetensors nor b\.bin"):
        read_weights(tmp_path, "a.safetensors", "b.bin")
