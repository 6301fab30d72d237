"""A margin of faint hiss around a clip, for recognisers that need some silence at its edges.

Clips cut tight to the first and last sound leave a CTC model no frames to wake up and to finish the
last letter in. Digital zero would not do: no recording has it, and it upsets features that are
normalised over the clip.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from speechadapt.core.seed import generator

LEVEL_DB = -65.0
SETTINGS_FILE = "recogniser.json"  # beside a model's weights: {"margin_s": seconds}


def add_margin(
    signal: NDArray[np.float32], sample_rate: int, margin_s: float
) -> NDArray[np.float32]:
    """Put `margin_s` seconds of hiss before and after a signal; always the same hiss.

    Args:
        signal: Mono samples, full scale 1.0.
        sample_rate: Hz.
        margin_s: Seconds on either side; 0 returns the signal itself.

    Returns:
        The longer signal.
    """
    count = round(margin_s * sample_rate)
    if count == 0:
        return signal
    hiss = _hiss(2 * count)
    return np.concatenate([hiss[:count], signal, hiss[count:]])


@lru_cache(maxsize=8)
def _hiss(count: int) -> NDArray[np.float32]:
    noise = generator("margin").standard_normal(count) * 10 ** (LEVEL_DB / 20)
    return np.asarray(noise, dtype=np.float32)
