"""A mask takes a recording down to the levels of another signal, and leaves what is below them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from speechadapt.restoration.masking import masked
from speechadapt.restoration.request import MaskConfig

RATE = 16000
PLAIN = MaskConfig(power=1.0, floor=0.0)


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def level(signal: np.ndarray, hz: float) -> float:
    """Return the amplitude of a tone within a signal."""
    inner = slice(RATE // 4, -RATE // 4)
    wave = np.exp(-2j * np.pi * hz * np.arange(len(signal)) / RATE)
    return 2 * abs(np.mean((signal * wave)[inner]))


def test_a_signal_that_is_its_own_mask_stays() -> None:
    signal = tone(440.0) * np.linspace(0.1, 0.5, RATE, dtype=np.float32)
    np.testing.assert_allclose(masked(signal, signal, RATE, MaskConfig()), signal, atol=1e-5)


def test_what_was_not_generated_goes_and_what_was_not_heard_does_not_come() -> None:
    heard = 0.4 * tone(500.0) + 0.3 * tone(3000.0)
    made = 0.4 * tone(500.0) + 0.3 * tone(6000.0)
    found = masked(heard, made, RATE, PLAIN)
    assert level(found, 500.0) == pytest.approx(0.4, rel=0.02)
    assert level(found, 3000.0) < 0.005
    assert level(found, 6000.0) < 0.005


def test_a_cell_is_taken_down_to_the_generated_level_raised_to_the_power() -> None:
    heard, made = 0.4 * tone(1000.0), 0.1 * tone(1000.0)
    for power, wanted in ((1.0, 0.1), (0.5, 0.2)):
        found = masked(heard, made, RATE, replace(PLAIN, power=power))
        assert level(found, 1000.0) == pytest.approx(wanted, rel=0.02)
    louder = masked(made, heard, RATE, PLAIN)
    np.testing.assert_allclose(louder, made, atol=1e-5)


def test_the_floor_is_the_least_that_is_left() -> None:
    silent = np.zeros(RATE, dtype=np.float32)
    found = masked(tone(1000.0), silent, RATE, replace(PLAIN, floor=0.25))
    assert level(found, 1000.0) == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize("samples", [1, 200, 512, 4001])
@pytest.mark.parametrize("rate", [16000, 24000])
def test_the_length_stays(samples: int, rate: int) -> None:
    signal = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    found = masked(signal, 0.5 * signal, rate, MaskConfig())
    assert found.shape == signal.shape
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
