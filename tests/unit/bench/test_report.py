from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from speechadapt.bench.report import draw, markdown
from speechadapt.core.errors import MissingExtra

FACTS = {"date": "2030-01-02", "rounds": 3, "environment": {"line": "cpu, float32"}}
INTERVAL = {"low": 0.05, "high": 0.2}
SIDE = {
    "side": "CTC, greedy",
    "median_s": {"encode": 1.0, "decode": 0.25, "total": 1.25},
    "rtf": 0.02,
    "tokens_per_s": 40.0,
}


def timed(side: str, seconds: int, total: float, **settings: Any) -> dict[str, Any]:
    facts = {"side": side, "clip_s": seconds, "tokens": 3 * seconds, "settings": settings}
    return SIDE | facts | {"median_s": {"encode": 0.1, "decode": total - 0.1, "total": total}}


RANDOM = FACTS | {
    "random": "tiny",
    "parameters": {"encoder": 1_500_000},
    "length": [
        timed("autoregressive, greedy", 5, 0.5),
        timed("autoregressive, greedy", 10, 1.0),
        timed("diffusion, K=1", 5, 0.8, length_head=True) | {"positions": 17},
        timed("diffusion, K=1", 10, 0.9, length_head=True) | {"positions": 32},
    ],
    "crossover": [{"side": "diffusion, K=1", "from_s": 8.75}, {"side": "K=15", "from_s": None}],
    "reuse": [
        {
            "positions": 96,
            "num_candidates": 4,
            "num_steps": 4,
            "frames": 1500,
            "seconds": {"reused": [1.0, 2.0, 1.5], "recomputed": [3.0, 4.0, 3.5]},
            "ratios": [3.0, 2.0, 2.3333],
            "same": True,
        }
    ],
}


def test_trained_sides_become_two_tables() -> None:
    scores = {"items": 7, "wer": 0.1, "wer_interval": INTERVAL, "mean_utterance_wer": 0.125}
    side = SIDE | {
        "sets": [scores | {"set": "wake/test"}],
        "ranges": [scores | {"set": "<5 s", "seconds": {"total": 1.25}}],
    }
    facts = {"model": "m", "clips": 7, "audio_s": 9.0, "sets": ["wake/test"], "missing": ["AR: no"]}
    text = markdown(FACTS | facts | {"sides": [side]})
    row = "| CTC, greedy | 1.000 | 0.250 | 1.250 | 0.02 | 40.0 | 10.0 [5.0, 20.0] (12.5) |"
    assert row in text
    assert "| side | <5 s (7 clips) |" in text
    assert "| CTC, greedy | 1.250 s, 10.0 |" in text
    assert "Not measured: AR: no." in text


def test_random_sides_become_tables_with_the_crossover() -> None:
    text = markdown(RANDOM)
    assert "encoder 1.5 M parameters" in text
    assert "| diffusion, K=1 | 0.100 | 0.800 | 0.900 | 0.02 | 10 | 30 | 40.0 | on | 32 |" in text
    assert "| diffusion, K=1 | 8.75 s |" in text
    assert "| K=15 | never |" in text
    assert "| 96 | 4 | 4 | 1500 | 1.500 | 3.500 | 2.33 | yes |" in text


def test_a_missing_drawing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"speechadapt\[report\]"):
        draw(RANDOM, tmp_path / "x.png")


def test_the_picture_has_a_line_for_each_side(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(RANDOM, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert text.count('id="line2d') >= 2
    assert "length of the clip" in text
