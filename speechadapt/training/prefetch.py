"""Batches built one ahead, in a thread, while the current one is used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from speechadapt.training.objective import Batch


class Prefetch:
    """Gives the batches of successive micro-steps.

    Args:
        build: Builds the batch of a micro-step.
        end: First micro-step that is never asked for.
    """

    def __init__(self, build: Callable[[int], Batch], end: int) -> None:
        self._build = build
        self._end = end
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[Batch]] | None = None

    def take(self, micro: int) -> Batch:
        """Return the batch of `micro` and start on the one after; errors of building rise here."""
        if self._next is not None and self._next[0] == micro:
            batch = self._next[1].result()
        else:
            batch = self._build(micro)
        self._next = None
        if micro + 1 < self._end:
            self._next = (micro + 1, self._pool.submit(self._build, micro + 1))
        return batch

    def close(self) -> None:
        """Wait for the batch under construction and end the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
