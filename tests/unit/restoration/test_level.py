"""Levels: exact gains for scaled copies, and no clipping."""

from __future__ import annotations

import numpy as np
import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.restoration.level import (
    matching_gain,
    unclipped,
    wanted_loudness,
)


def noise(count: int = 16000, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def test_policies_are_read() -> None:
    assert wanted_loudness("keep") is None
    assert wanted_loudness("-23LUFS") == -23.0
    assert wanted_loudness("-16.5 lufs") == -16.5
    for wrong in ("loud", "23LUFS", "-90LUFS", "-23"):
        with pytest.raises(ConfigError, match="give 'keep', or a value such as '-23LUFS'"):
            wanted_loudness(wrong)


@pytest.mark.parametrize("scale", [0.01, 0.5, 1.0, 3.0])
def test_a_scaled_copy_gives_its_scale(scale: float) -> None:
    assert matching_gain(noise(), noise() * np.float32(scale)) == pytest.approx(scale, rel=1e-5)
    assert matching_gain(noise(100), noise(100) * np.float32(scale)) == pytest.approx(scale)


def test_noise_beside_the_speech_moves_the_gain_little() -> None:
    speech = noise() * np.repeat([1.0, 0.0] * 4, 2000).astype(np.float32)
    heard = 2 * speech + 0.3 * noise(seed=1)
    assert matching_gain(speech, heard) == pytest.approx(2.0, rel=0.05)


def test_silence_has_gains_too() -> None:
    silence = np.zeros(16000, dtype=np.float32)
    assert matching_gain(noise(), silence) == 0.0
    assert matching_gain(silence, noise()) == 1.0


def test_nothing_reaches_full_scale_and_quiet_samples_stay() -> None:
    ramp = np.linspace(-5, 5, 10001, dtype=np.float32)
    found = unclipped(ramp)
    assert float(np.abs(found).max()) < 1.0
    quiet = np.abs(ramp) <= 0.9
    assert np.array_equal(found[quiet], ramp[quiet])
    assert bool((np.diff(found) >= 0).all())
