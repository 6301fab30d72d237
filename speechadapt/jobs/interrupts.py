"""Signals: the first asks a run to end after the batch under way, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_WATCHED = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Notes SIGINT and SIGTERM while it is entered.

    Outside the main thread, where Python allows no handlers, signals keep their usual effect.

    Args:
        say: Receives one line when the first signal comes.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.caught: int | None = None
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _WATCHED:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int | None:
        """128 plus the signal's number, as shells count; None where none came."""
        return None if self.caught is None else 128 + self.caught

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            raise KeyboardInterrupt
        self.caught = number
        self._say("interrupted: finishing the batch under way; once more ends at once.")
