"""Scores without models, against closed forms and against slow code that follows the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speechadapt.core.errors import ShapeError
from speechadapt.metrics.quality import (
    BandwidthMeter,
    bandwidth_hz,
    clipped_rate,
    level_db,
    log_spectral_distance,
    si_sdr,
)


def noise(count: int = 8000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32) * 0.1


def slow_distance(reference: np.ndarray, degraded: np.ndarray) -> float:
    """The definition, frame by frame and bin by bin, with a discrete Fourier transform by hand."""
    sizes = [math.sqrt(sum(float(v) ** 2 for v in one) / len(one)) for one in (reference, degraded)]
    n = np.arange(512)
    window = 0.5 * (1 - np.cos(2 * np.pi * n / 512))
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512)
    powers = []
    for signal, size in zip((reference, degraded), sizes, strict=True):
        scaled = signal.astype(float) / size
        starts = range(0, len(signal) - 511, 128)
        powers.append([np.abs(kernel @ (scaled[s : s + 512] * window)) ** 2 for s in starts])
    floor = max(np.max(powers[0]), np.max(powers[1])) * 1e-8
    frames = []
    for one, other in zip(*powers, strict=True):
        total = 0.0
        for first, second in zip(one, other, strict=True):
            gap = 10 * math.log10(max(first, floor)) - 10 * math.log10(max(second, floor))
            total += gap * gap
        frames.append(math.sqrt(total / 257))
    return sum(frames) / len(frames)


def test_the_distance_follows_its_definition() -> None:
    reference = noise(2000)
    degraded = reference + 0.3 * noise(2000, 1)
    degraded[:700] = 0.0
    found = log_spectral_distance(reference, degraded)
    assert found == pytest.approx(slow_distance(reference, degraded), rel=1e-9)


def test_the_distance_is_zero_for_a_copy_at_any_level_and_symmetric() -> None:
    signal, other = noise(), noise(seed=1)
    assert log_spectral_distance(signal, signal * np.float32(0.25)) == pytest.approx(0.0, abs=1e-4)
    forth = log_spectral_distance(signal, other)
    assert forth == pytest.approx(log_spectral_distance(other, signal))
    assert forth is not None
    assert forth > 5.0


def test_what_lies_below_the_floor_does_not_count() -> None:
    tone = np.sin(np.arange(8192) * 2 * np.pi * 16 / 512).astype(np.float32)
    faint = tone + 1e-6 * noise(8192)
    assert log_spectral_distance(tone, faint) == pytest.approx(0.0, abs=0.01)


def test_the_ratio_has_its_closed_form() -> None:
    reference = np.array([1.0, -1.0, 1.0, -1.0], dtype=np.float32)
    rest = np.array([1.0, 1.0, -1.0, -1.0], dtype=np.float32)
    for scale in (1.0, 0.5, -2.0):
        mixed = (scale * (reference + 0.1 * rest)).astype(np.float32)
        assert si_sdr(reference, mixed) == pytest.approx(20.0, abs=1e-4)
    assert si_sdr(reference, reference + np.float32(0.7) + 0.1 * rest) == pytest.approx(
        20.0, abs=1e-4
    )


def test_missing_scores_are_missing() -> None:
    silence, signal = np.zeros(4000, dtype=np.float32), noise(4000)
    empty = np.zeros(0, dtype=np.float32)
    assert log_spectral_distance(silence, signal) is None
    assert log_spectral_distance(signal, silence) is None
    assert si_sdr(silence, signal) is None
    assert si_sdr(signal, signal) is None
    assert si_sdr(signal, silence) is None
    assert si_sdr(empty, empty) is None
    assert bandwidth_hz(silence, 16000) is None
    assert level_db(silence) is None
    assert clipped_rate(empty) is None
    assert log_spectral_distance(empty, empty) is None


def test_a_signal_shorter_than_a_frame_has_a_distance() -> None:
    assert log_spectral_distance(noise(100), noise(100, 1)) is not None


def test_lengths_must_agree() -> None:
    with pytest.raises(ShapeError, match="10 samples was to be compared with 11"):
        si_sdr(noise(10), noise(11))
    with pytest.raises(ShapeError, match="cut to one length"):
        log_spectral_distance(noise(10), noise(11))


@pytest.mark.parametrize("edge", [2000.0, 3500.0, 6000.0])
def test_the_bandwidth_is_where_the_band_ends(edge: float) -> None:
    spectrum = np.fft.rfft(noise(32000))
    spectrum[np.fft.rfftfreq(32000, 1 / 16000) > edge] = 0.0
    signal = np.fft.irfft(spectrum).astype(np.float32)
    assert bandwidth_hz(signal, 16000) == pytest.approx(edge, abs=200.0)
    assert bandwidth_hz(signal, 48000) == pytest.approx(3 * edge, abs=600.0)


def test_the_bandwidth_does_not_depend_on_the_blocks() -> None:
    signal = noise(20000)
    signal[9000:] = np.convolve(signal[9000:], np.ones(40) / 40, "same")
    wanted = BandwidthMeter(16000)
    wanted.add(signal)
    for size in (100, 256, 511, 3000):
        meter = BandwidthMeter(16000)
        for start in range(0, len(signal), size):
            meter.add(signal[start : start + size])
        assert meter.hz() == wanted.hz()
        np.testing.assert_allclose(meter._powers, wanted._powers)
    brief = BandwidthMeter(16000)
    brief.add(np.sin(np.arange(300) * 2 * np.pi / 8).astype(np.float32))
    assert brief.hz() == bandwidth_hz(np.sin(np.arange(300) * np.pi / 4).astype(np.float32), 16000)
    assert brief.hz() > 2000.0


def test_level_and_clipping_are_counted() -> None:
    square = np.tile(np.array([1.0, -1.0], dtype=np.float32), 50)
    assert level_db(square) == pytest.approx(0.0)
    assert level_db(square * np.float32(0.1)) == pytest.approx(-20.0, abs=1e-4)
    assert clipped_rate(square) == 1.0
    assert clipped_rate(np.array([1.0, 0.5, -1.0, 0.0], dtype=np.float32)) == 0.5
