"""The engine for one process: units in order, the next one prepared while this one runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from speechadapt.engines.base import Outcome, Unit, Worker, WorkerFactory


@dataclass(frozen=True)
class SerialEngine:
    """Runs units in this process, in order.

    Args:
        ahead: Units whose `prepare` may run before their turn; it bounds the memory.
    """

    ahead: int = 2

    def map(
        self, factory: WorkerFactory, units: Iterable[Unit], stop: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """Run every unit and yield its outcome, in order (see `Engine.map`)."""
        worker = factory(0)
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        waiting: deque[tuple[Unit, Future[Any]]] = deque()
        source = iter(units)
        try:
            while not stop():
                while len(waiting) < self.ahead and (unit := next(source, None)) is not None:
                    waiting.append((unit, executor.submit(worker.prepare, unit)))
                if not waiting:
                    break
                yield run_unit(worker, *waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()
            executor.shutdown(wait=True)
            worker.close()


def run_unit(worker: Worker, unit: Unit, prepared: Future[Any]) -> Outcome:
    """Process one unit; an exception of the worker becomes a `raised` outcome.

    Args:
        worker: The worker of this process.
        unit: The unit.
        prepared: What `prepare` returns, perhaps still under way.

    Returns:
        The outcome; `KeyboardInterrupt` and `SystemExit` pass through.
    """
    try:
        return Outcome(unit, "done", worker.process(unit, prepared.result()))
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        return Outcome(unit, "raised", message=f"{type(error).__name__}: {first}")
