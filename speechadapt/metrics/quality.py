"""Scores of a signal against its clean reference that need no trained model.

Signals are mono float arrays, reference and degraded of one length and rate. A score that a pair
does not have (silence, nothing left to compare) is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from speechadapt.audio.span import Signal
from speechadapt.core.errors import ShapeError

Scores = Mapping[str, float | None]

FFT, HOP = 512, 128
FLOOR_DB = -80.0
_BAND_FLOOR_DB = -60.0
_BAND_HOP = FFT // 2
_FULL_SCALE = 0.999


def log_spectral_distance(reference: Signal, degraded: Signal) -> float | None:
    """Return the log-spectral distance in decibels.

    The mean over frames of the root mean square over bins of the difference of 10 log10 power:
    Hann windows of 512 samples every 128, both signals at the same root mean square, powers held at
    80 dB below the largest of either or more. Frames lie wholly inside; a signal shorter than one
    is extended with zeros to it.

    Args:
        reference: Clean samples.
        degraded: As many.

    Returns:
        The distance; None where either signal is silent or empty.

    Raises:
        ShapeError: The lengths differ.
    """
    _check(reference, degraded)
    first, second = _level(reference), _level(degraded)
    if first == 0.0 or second == 0.0:
        return None
    powers = [
        _powers(signal.astype(np.float64) / level)
        for signal, level in ((reference, first), (degraded, second))
    ]
    floor = max(float(power.max()) for power in powers) * 10 ** (FLOOR_DB / 10)
    one, other = (10 * np.log10(np.maximum(power, floor)) for power in powers)
    return float(np.mean(np.sqrt(np.mean((one - other) ** 2, axis=1))))


def si_sdr(reference: Signal, degraded: Signal) -> float | None:
    """Return the scale-invariant signal-to-distortion ratio in decibels.

    Both signals are centred first. It compares waveforms sample by sample, so a signal that was
    synthesised anew scores low whatever it sounds like.

    Args:
        reference: Clean samples.
        degraded: As many.

    Returns:
        The ratio; None where the reference is constant, or one of target and rest is nothing.

    Raises:
        ShapeError: The lengths differ.

    Source:
        https://arxiv.org/abs/1811.02508 equation 2.
    """
    _check(reference, degraded)
    if not len(reference):
        return None
    clean = reference.astype(np.float64) - np.mean(reference, dtype=np.float64)
    given = degraded.astype(np.float64) - np.mean(degraded, dtype=np.float64)
    energy = float(clean @ clean)
    if energy == 0.0:
        return None
    target = clean * (float(given @ clean) / energy)
    rest = given - target
    above, below = float(target @ target), float(rest @ rest)
    if above == 0.0 or below == 0.0:
        return None
    return 10 * math.log10(above / below)


def bandwidth_hz(signal: Signal, sample_rate: int) -> float | None:
    """Return the highest frequency with something in it (see `BandwidthMeter`).

    Args:
        signal: Samples.
        sample_rate: Hz.
    """
    meter = BandwidthMeter(sample_rate)
    meter.add(signal)
    return meter.hz()


class BandwidthMeter:
    """The highest frequency of a recording that comes in blocks.

    That is the highest bin of the mean spectrum (Hann windows of 512 samples every 256) within
    60 dB of the largest, so up to five bins too high for an edge as steep as a filter can be. What
    is left at the end and fills no window is heard only where there was none before.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._powers = np.zeros(FFT // 2 + 1)
        self._left: Signal = np.zeros(0, dtype=np.float32)

    def add(self, samples: Signal) -> None:
        """Take in the next samples.

        Args:
            samples: Of one channel.
        """
        joined = np.concatenate([self._left, samples])
        if len(joined) < FFT:
            self._left = joined
            return
        self._powers += _powers(joined.astype(np.float64), _BAND_HOP).sum(axis=0)
        self._left = joined[_BAND_HOP * ((len(joined) - FFT) // _BAND_HOP + 1) :]

    def hz(self) -> float | None:
        """Return the frequency in Hz; None for silence."""
        powers = self._powers
        if not powers.any():
            powers = _powers(self._left.astype(np.float64), _BAND_HOP).sum(axis=0)
        if not powers.any():
            return None
        filled = np.flatnonzero(powers >= powers.max() * 10 ** (_BAND_FLOOR_DB / 10))
        return float(filled[-1]) * self._sample_rate / FFT


def level_db(signal: Signal) -> float | None:
    """Return the root mean square in decibels of full scale; None for silence."""
    level = _level(signal)
    return 20 * math.log10(level) if level > 0.0 else None


def clipped_rate(signal: Signal) -> float | None:
    """Return the share of samples at full scale; None where there are no samples."""
    if not len(signal):
        return None
    return float(np.mean(np.abs(signal) >= _FULL_SCALE))


def _level(signal: Signal) -> float:
    if not len(signal):
        return 0.0
    return math.sqrt(float(np.mean(np.square(signal, dtype=np.float64))))


def _powers(signal: NDArray[np.float64], hop: int = HOP) -> NDArray[np.float64]:
    missing = FFT - len(signal)
    padded = np.pad(signal, (0, missing)) if missing > 0 else signal
    frames = sliding_window_view(padded, FFT)[::hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    return np.asarray(np.abs(np.fft.rfft(frames * window)) ** 2)


def _check(reference: Signal, degraded: Signal) -> None:
    if len(reference) != len(degraded):
        raise ShapeError(
            f"a reference of {len(reference)} samples was to be compared with {len(degraded)} "
            "samples; both must be at one rate and cut to one length."
        )
