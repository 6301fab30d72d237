from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import MissingExtra
from speechadapt.training.record import Record, trim_log


def test_figures_and_scores_are_json_lines(tmp_path: Path) -> None:
    record = Record(tmp_path, steps=4, step=0)
    record.figures(1, 2.345, {"loss": 1.23456789})
    record.scores(1, {"wer": 0.5})
    record.close()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 1, "seconds": 2.3, "loss": 1.234568},
        {"step": 1, "dev": {"wer": 0.5}},
    ]


def test_rows_past_the_checkpoint_and_a_torn_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    trim_log(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_tensorboard_that_is_not_installed_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = builtins.__import__

    def without(name: str, *words: Any, **more: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return plain(name, *words, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"speechadapt\[track\]"):
        Record(tmp_path, steps=4, step=0, tensorboard=True)
