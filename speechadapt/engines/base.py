"""What every engine offers: units of work are run on workers, whatever the work is.

A unit is a number and a payload. A worker is built once per process by a factory and then takes
units one after another: `prepare` may run ahead in a thread (reading, decoding), `process` runs in
the worker's main thread. Results come back in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

OutcomeKind = Literal["done", "raised", "lost", "timeout"]


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Args:
        index: A number that is unique within one run.
        payload: What the worker is given; picklable.
        timeout_s: Seconds the unit may take; None means any time. Only engines that can kill a
            worker keep it.
        attempt: How often the unit was begun, this time included.
    """

    index: int
    payload: Any
    timeout_s: float | None = None
    attempt: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of one unit.

    Args:
        unit: The unit, with the attempt that ended it.
        kind: `done`; `raised` (the worker raised and lives on); `lost` (the worker died with it as
            often as is allowed); `timeout`.
        value: What the worker returned.
        message: What went wrong, for a person.
    """

    unit: Unit
    kind: OutcomeKind
    value: Any = None
    message: str = ""


@runtime_checkable
class Worker(Protocol):
    """Takes units one after another; one per process."""

    def prepare(self, unit: Unit) -> Any:
        """Do what may be done ahead, in a thread beside `process` of an earlier unit."""

    def process(self, unit: Unit, prepared: Any) -> Any:
        """Do the work; whatever it returns must be picklable."""

    def close(self) -> None:
        """Flush and let go."""


WorkerFactory = Callable[[int], Worker]
"""Builds a worker from its number; picklable for engines with processes."""


@runtime_checkable
class Engine(Protocol):
    """Schedules units on workers."""

    def map(
        self, factory: WorkerFactory, units: Iterable[Unit], stop: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """Run every unit and yield one outcome each, in any order.

        Args:
            factory: Builds the workers.
            units: The work.
            stop: Asked between units; once it says True no further unit is begun, those under way
                are finished and yielded, and the iterator ends.

        Returns:
            One outcome per unit that was begun.

        Raises:
            Exception: Whatever the factory raised; a factory that fails ends the run.
        """
