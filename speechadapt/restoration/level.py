"""Levels of restored signals: as loud as before, or at a given loudness, and never clipped."""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Float32

from speechadapt.audio.span import Signal
from speechadapt.core.errors import ConfigError

KEEP = "keep"
_LUFS = re.compile(r"(-?\d+(?:\.\d+)?)\s*LUFS", re.IGNORECASE)
_KNEE = 0.9
_FFT, _HOP = 512, 256


def wanted_loudness(level: str) -> float | None:
    """Read a level policy.

    Args:
        level: `keep`, or a loudness such as `-23LUFS`.

    Returns:
        The loudness in LUFS; None keeps the level.

    Raises:
        ConfigError: It is neither.
    """
    if level == KEEP:
        return None
    found = _LUFS.fullmatch(level.strip())
    if not found or not -70.0 <= float(found[1]) < 0.0:
        raise ConfigError(
            f"loudness '{level}' was asked for; give 'keep', or a value such as '-23LUFS' between "
            "-70 and 0."
        )
    return float(found[1])


def matching_gain(made: Signal, heard: Signal) -> float:
    """Return the factor that makes a restored signal as loud as the speech in what was heard.

    It is the least-squares factor between short-time magnitudes, which noise beside the speech
    moves little: the restored signal has next to nothing there. A scaled copy gives the scale.

    Args:
        made: The restored signal.
        heard: The input, as many samples at the same rate.

    Returns:
        The factor; 0 where nothing was heard, 1 where nothing was made.
    """
    first, second = _magnitudes(made), _magnitudes(heard)
    below = float((first * first).sum())
    return float((first * second).sum()) / below if below > 0.0 else 1.0


def _magnitudes(signal: Signal) -> np.ndarray:
    missing = max(0, _FFT - len(signal))
    padded = np.pad(signal.astype(np.float64), (0, missing))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    return np.asarray(np.abs(np.fft.rfft(frames * np.hanning(_FFT))))


def unclipped(signal: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Bend what is above 0.9 so that nothing reaches full scale; the rest is left alone.

    Args:
        signal: Samples of any size.
    """
    size = np.abs(signal)
    room = 1.0 - _KNEE
    bent = np.sign(signal) * (_KNEE + room * np.tanh((size - _KNEE) / room) * 0.999)
    return np.asarray(np.where(size > _KNEE, bent, signal), dtype=np.float32)
