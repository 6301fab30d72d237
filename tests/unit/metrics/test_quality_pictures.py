"""Pictures of restorations: which files are drawn, and what a spectrogram holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.metrics.quality_pictures import chosen, draw, levels_db
from speechadapt.metrics.quality_report import Pair, Scored


def scored(name: str, lsd: float | None, folder: Path = Path()) -> Scored:
    pair = Pair(name, folder / "clean.wav", folder / "after.wav", folder / "before.wav")
    return Scored(pair, {"lsd_db": lsd}, {"lsd_db": 9.0})


def test_the_worst_and_the_median_are_drawn_and_missing_scores_do_not_count() -> None:
    items = [scored("a", 3.0), scored("b", 7.0), scored("c", None), scored("d", 5.0)]
    found = {name: item.pair.id for name, item in chosen(items).items()}
    assert found == {"worst": "b", "median": "d"}
    assert chosen([scored("c", None)]) == {}


def test_a_tone_stands_in_its_bin_and_silence_is_the_floor() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 16000).astype(np.float32)
    levels = levels_db(tone)
    assert int(levels.mean(axis=1).argmax()) == 32
    assert (float(levels.max()), float(levels.min())) == (0.0, -80.0)
    assert np.unique(levels_db(np.zeros(100, dtype=np.float32))).tolist() == [-80.0]


def test_pictures_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    random = np.random.default_rng(0)
    for name in ("clean", "after", "before"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * random.standard_normal(4000), 16000)
    pictures = draw([scored("a", 3.0, tmp_path)], tmp_path / "pictures")
    assert [path.name for path in pictures] == ["worst.png", "median.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
