"""Learning-rate schedules as functions of the step."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int, final: float = 0.0) -> float:
    """Return the factor on the peak learning rate: a linear rise, then half a cosine down.

    Args:
        step: From 0.
        total: Step at which the factor reaches `final`.
        warmup: Steps of the rise.
        final: Last factor, 0 to 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    part = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * part))
