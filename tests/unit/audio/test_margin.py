"""The margin of hiss around a clip."""

from __future__ import annotations

import numpy as np

from speechadapt.audio.margin import LEVEL_DB, add_margin

RATE = 16000


def test_the_clip_stands_unchanged_in_the_middle() -> None:
    signal = np.linspace(-1, 1, 1000, dtype=np.float32)
    longer = add_margin(signal, RATE, 0.1)
    assert len(longer) == 1000 + 2 * 1600
    np.testing.assert_array_equal(longer[1600:-1600], signal)


def test_the_hiss_is_faint_and_always_the_same() -> None:
    first, second = (add_margin(np.zeros(10, np.float32), RATE, 0.5) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    level = 10 * np.log10(np.mean(first[:8000] ** 2))
    assert abs(level - LEVEL_DB) < 0.5


def test_no_margin_returns_the_signal_itself() -> None:
    signal = np.ones(5, np.float32)
    assert add_margin(signal, RATE, 0.0) is signal
