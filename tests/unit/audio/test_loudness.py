"""The loudness asked for is reached; what has none is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speechadapt.audio.loudness import loudness_gain


def noise(count: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


def test_the_loudness_is_reached() -> None:
    from torchaudio.functional import loudness

    signal = noise(48000)
    gain = loudness_gain(signal, 16000, -23.0)
    found = float(loudness(torch.from_numpy(signal * np.float32(gain))[None], 16000))
    assert found == pytest.approx(-23.0, abs=0.01)


def test_silence_and_stubs_are_left_alone() -> None:
    assert loudness_gain(np.zeros(16000, dtype=np.float32), 16000, -23.0) == 1.0
    assert loudness_gain(noise(100), 16000, -23.0) == 1.0
