"""`tools/plot_log.py`: a log becomes two small curves."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import plot_log
import pytest

from speechadapt.core.errors import DataError, MissingExtra

MOST_BYTES = 100_000


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run of 2,000 steps with a hole in its loss and four evaluations."""
    rows: list[dict[str, Any]] = []
    for step in range(10, 2001, 10):
        loss = math.nan if step == 500 else 5 / math.sqrt(step) + 0.2 * math.sin(step)
        rows.append({"step": step, "seconds": step / 10, "loss": loss})
        if step % 500 == 0:
            rows.append({"step": step, "dev": {"wer": 200 / step, "loss": 3.0}})
    return write_log(tmp_path / "words", rows)


def write_log(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_word_error_rate_is_preferred(run: Path) -> None:
    curves = plot_log.read_log(run)
    assert curves.score == "wer"
    assert curves.dev == {500: 0.4, 1000: 0.2, 1500: 200 / 1500, 2000: 0.1}
    assert len(curves.loss) == 200


def test_without_it_the_dev_loss_is_drawn(tmp_path: Path) -> None:
    folder = write_log(
        tmp_path / "a", [{"step": 1, "loss": 2.0}, {"step": 1, "dev": {"loss": 1.0}}]
    )
    assert plot_log.read_log(folder).score == "loss"
    bare = write_log(tmp_path / "b", [{"step": 1, "loss": 2.0}])
    assert plot_log.read_log(bare).dev == {}


def test_a_resumed_run_takes_back_the_steps_it_repeats(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1.0} for step in (1, 2, 3, 4)]
    rows.insert(3, {"step": 3, "dev": {"wer": 0.5}})
    again = [{"step": 3, "loss": 9.0}]
    curves = plot_log.read_log(write_log(tmp_path / "a", rows + again))
    assert curves.loss == {1: 1.0, 2: 1.0, 3: 9.0}
    assert curves.dev == {3: 0.5}


def test_smoothing_passes_over_what_is_no_number() -> None:
    assert plot_log.smoothed([1.0, math.nan, 3.0, 5.0], 2) == [1.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize("text", ["", "{", '{"loss": 1.0}\n', '{"step": 1, "dev": {"wer": 1}}\n'])
def test_a_log_without_a_curve_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"log\.jsonl (is damaged|holds no loss yet)"):
        plot_log.read_log(tmp_path)


def test_a_folder_without_a_log_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot_log.main([str(tmp_path), "--output", str(tmp_path / "x.png")]) == 2
    assert "holds no log.jsonl" in capsys.readouterr().err


def test_the_picture_is_small_and_the_same_every_time(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'report'")
    pictures = [tmp_path / "first.png", tmp_path / "second.png"]
    for picture in pictures:
        assert plot_log.main([str(run), str(run), "--output", str(picture)]) == 0
    first, second = (picture.read_bytes() for picture in pictures)
    assert first.startswith(b"\x89PNG")
    assert 5_000 < len(first) < MOST_BYTES
    assert first == second


def test_without_matplotlib_the_extra_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtra, match=r"speechadapt\[report\]"):
        plot_log.draw([plot_log.read_log(run)], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
