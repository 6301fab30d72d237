"""The mean of several models is the mean of their tensors."""

from __future__ import annotations

from pathlib import Path

import average_models
import pytest
import torch
from safetensors.torch import load_file, save_file


def _model(folder: Path, value: float, width: int = 2) -> Path:
    folder.mkdir()
    save_file({"weight": torch.full((width,), value).half()}, folder / "model.safetensors")
    (folder / "config.json").write_text(f'{{"from": "{folder.name}"}}')
    return folder


def test_tensors_are_averaged_and_the_rest_is_the_firsts(tmp_path: Path) -> None:
    first, second = _model(tmp_path / "a", 1.0), _model(tmp_path / "b", 2.0)
    assert average_models.main([str(first), str(second), "--output", str(tmp_path / "c")]) == 0
    found = load_file(tmp_path / "c" / "model.safetensors")["weight"]
    assert found.dtype == torch.float16
    assert found.tolist() == [1.5, 1.5]
    assert (tmp_path / "c" / "config.json").read_text() == '{"from": "a"}'


def test_models_of_other_shapes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = _model(tmp_path / "a", 1.0), _model(tmp_path / "b", 2.0, width=3)
    assert average_models.main([str(first), str(second), "--output", str(tmp_path / "c")]) == 1
    assert "'weight' of" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
