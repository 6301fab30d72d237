"""Pairing files, scoring them, and means that leave nothing out in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.core.errors import DataError
from speechadapt.metrics.quality import log_spectral_distance
from speechadapt.metrics.quality_report import (
    find_pairs,
    item_rows,
    markdown_table,
    mean_interval,
    score_pair,
    summary,
)


def write(path: Path, seed: int, rate: int = 16000, extra: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = 0.1 * np.random.default_rng(seed).standard_normal(8000 + extra)
    soundfile.write(path, signal.astype(np.float32), rate, subtype="FLOAT")
    return signal.astype(np.float32)


def test_folders_are_paired_by_name_and_nothing_is_dropped(tmp_path: Path) -> None:
    clean = write(tmp_path / "ref/a/x.wav", 0)
    given = write(tmp_path / "deg/a/x.wav", 1, extra=160)
    write(tmp_path / "ref/y.wav", 2)
    write(tmp_path / "deg/z.wav", 3)
    pairs = find_pairs(tmp_path / "ref", tmp_path / "deg")
    assert [(pair.id, pair.degraded is None) for pair in pairs] == [("a/x", False), ("y", True)]
    items = [score_pair(pair, ()) for pair in pairs]
    assert items[0].scores["lsd_db"] == log_spectral_distance(clean, given[:8000])
    assert items[0].scores["length_drift_s"] == pytest.approx(0.01)
    found = summary(items)
    assert found["items"] == 2
    assert found["failed"] == {"y": "no file of this name"}
    assert found["scores"]["lsd_db"]["degraded"]["missing"] == 1
    assert "| lsd_db |" in markdown_table(found)
    assert "Not scored: y: no file of this name" in markdown_table(found)
    assert item_rows(items)[1]["error"] == "no file of this name"


def test_changes_are_of_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"ref/{name}.wav", ord(name))
        write(tmp_path / f"deg/{name}.wav", ord(name))
        write(tmp_path / f"was/{name}.wav", ord(name) + 10)
    pairs = find_pairs(tmp_path / "ref", tmp_path / "deg", tmp_path / "was")
    scores = summary([score_pair(pair, ()) for pair in pairs])["scores"]["lsd_db"]
    assert scores["degraded"]["mean"] == 0.0
    assert scores["change"]["mean"] == pytest.approx(-scores["before"]["mean"])
    assert scores["change"]["high"] < 0.0
    assert "| before | degraded | change |" in markdown_table(
        summary([score_pair(pair, ()) for pair in pairs])
    )


def test_rates_may_differ(tmp_path: Path) -> None:
    time = np.arange(32000) / 32000
    tone = 0.1 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "a.wav", tone[::2], 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", tone, 32000, subtype="FLOAT")
    (pair,) = find_pairs(tmp_path / "a.wav", tmp_path / "b.wav")
    scores = score_pair(pair, ()).scores
    assert scores["length_drift_s"] == 0.0
    assert scores["si_sdr_db"] is not None
    assert scores["si_sdr_db"] > 30.0


def test_a_mean_knows_what_is_missing_and_takes_negative_values() -> None:
    interval, missing = mean_interval([-1.0, None, -3.0])
    assert interval is not None
    assert interval.estimate == pytest.approx(-2.0)
    assert -3.0 <= interval.low <= interval.high <= -1.0
    assert missing == 1
    assert mean_interval([None]) == (None, 1)


def test_unreadable_files_and_wrong_pairs_are_said(tmp_path: Path) -> None:
    write(tmp_path / "ref/a.wav", 0)
    (tmp_path / "deg").mkdir()
    (tmp_path / "deg/a.wav").write_text("no audio")
    (pair,) = find_pairs(tmp_path / "ref", tmp_path / "deg")
    assert score_pair(pair, ()).error.startswith("UNREADABLE")
    with pytest.raises(DataError, match="is not there"):
        find_pairs(tmp_path / "ref", tmp_path / "none")
    with pytest.raises(DataError, match="folders alone"):
        find_pairs(tmp_path / "ref", tmp_path / "deg/a.wav")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="none of the 1 files"):
        find_pairs(tmp_path / "ref", tmp_path / "other")
    (tmp_path / "ref/a.mp3").write_text("x")
    with pytest.raises(DataError, match="'a' twice"):
        find_pairs(tmp_path / "ref", tmp_path / "deg")
