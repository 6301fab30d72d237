"""Loudness of recordings, as broadcasters measure it (ITU-R BS.1770)."""

from __future__ import annotations

import math

import numpy as np

from speechadapt.audio.span import Signal

_SHORTEST_S = 0.4


def loudness_gain(signal: Signal, sample_rate: int, loudness: float) -> float:
    """Return the factor that brings a signal to a loudness.

    Args:
        signal: Samples.
        sample_rate: Hz.
        loudness: Wanted, in LUFS.

    Returns:
        The factor; 1 where the signal has no loudness: silence, or less than 0.4 s.
    """
    import torch
    from torchaudio.functional import loudness as measure

    if len(signal) < math.ceil(_SHORTEST_S * sample_rate) or not signal.any():
        return 1.0
    found = float(measure(torch.from_numpy(signal.astype(np.float32))[None], sample_rate))
    return 10 ** ((loudness - found) / 20) if math.isfinite(found) else 1.0
