"""Signals that ask a run to stop after the step under way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def caught_signals(note: Callable[[int], None]) -> Iterator[None]:
    """Hand the first SIGINT or SIGTERM to `note`; a second one acts as usual.

    Outside the main thread, where Python allows no handlers, nothing is caught.

    Args:
        note: Receives the signal's number.
    """
    previous: dict[int, Any] = {}

    def restore() -> None:
        while previous:
            number, handler = previous.popitem()
            signal.signal(number, handler)

    def stop(number: int, *_: Any) -> None:
        note(number)
        restore()

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, stop)
        except ValueError:  # not in the main thread: signals are the caller's
            break
    try:
        yield
    finally:
        restore()
