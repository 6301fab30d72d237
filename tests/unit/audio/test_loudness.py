"""The loudness asked for is reached; what has none is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speechadapt.audio.loudness import LoudnessMeter, gain_between, loudness_gain


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


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (48000, 1)])
def test_a_meter_fed_in_portions_agrees_with_torchaudio(rate: int, channels: int) -> None:
    from torchaudio.functional import loudness

    swell = np.abs(np.sin(np.arange(5 * rate) / rate * 2)) ** 4
    random = np.random.default_rng(0)
    # what is constant passes the filters only where they forget what was before
    signal = 0.3 + 0.05 * swell * random.standard_normal((channels, 5 * rate))
    signal = signal.astype(np.float32)
    wanted = float(loudness(torch.from_numpy(signal), rate))
    for portion in (777, rate, 5 * rate):
        meter = LoudnessMeter(rate)
        for start in range(0, signal.shape[1], portion):
            meter.add(signal[:, start : start + portion])
        assert meter.lufs() == pytest.approx(wanted, abs=0.02)


def test_a_recording_without_loudness_has_none() -> None:
    meter = LoudnessMeter(16000)
    assert meter.lufs() is None
    meter.add(np.zeros((1, 16000), dtype=np.float32))
    assert meter.lufs() is None
    assert gain_between(None, -23.0) == 1.0
    assert gain_between(-43.0, -23.0) == pytest.approx(10.0)
