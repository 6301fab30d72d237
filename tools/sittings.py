"""Trainings one after another until none is left, or until the time for them is over."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Named(Protocol):
    """A training with a name."""

    @property
    def name(self) -> str:
        """What messages call it."""


RunT = TypeVar("RunT", bound=Named)


def sit(
    minutes: float | None,
    missing: Callable[[], Sequence[RunT]],
    train: Callable[[RunT], bool],
    told: Callable[[RunT], str],
) -> bool:
    """Do what is missing until nothing is, or until the sitting is over.

    A run is not started where one of usual length would end too late.

    Args:
        minutes: Length of the sitting; None sets no end.
        missing: Returns what is to be done, the next first; asked anew after every run.
        train: Does a run; False where it was stopped.
        told: Returns the line to print after a run.

    Returns:
        Whether nothing is missing.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    lengths: list[float] = []
    while left := missing():
        usual = statistics.median(lengths) if lengths else 0.0
        if end is not None and time.monotonic() + usual > end:
            print(f"the sitting is over; {len(left)} runs or more are left")
            return False
        started = time.monotonic()
        if not train(left[0]):
            print(f"stopped during {left[0].name}")
            return False
        lengths.append(time.monotonic() - started)
        print(told(left[0]), flush=True)
    return True
