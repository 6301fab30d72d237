"""The engine for several processes on one machine: one worker each, replaced when it dies.

The parent hands a worker the unit it runs and one more to prepare meanwhile. A worker that dies is
replaced; what it held is begun again, now alone on its worker so that blame is exact, until a unit
has killed as many workers as is allowed and is given up as `lost`.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from speechadapt.core.errors import JobError
from speechadapt.engines.base import Outcome, Unit, WorkerFactory
from speechadapt.engines.worker_process import serve

_POLL_S = 0.2
_START_DEATHS = 3


@dataclass
class _Seat:
    """A worker process and what it holds."""

    number: int
    process: BaseProcess
    connection: Connection
    ready: bool = False
    held: dict[int, Unit] = field(default_factory=dict)
    current: int | None = None
    began: float = 0.0
    draining: bool = False


@dataclass(frozen=True)
class ProcessEngine:
    """Runs units in worker processes on this machine.

    Args:
        workers: Processes, one worker each.
        retries: How often a unit may be begun again after its worker died.
    """

    workers: int = 2
    retries: int = 2

    def map(
        self, factory: WorkerFactory, units: Iterable[Unit], stop: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """Run every unit and yield its outcome, in any order (see `Engine.map`).

        Raises:
            JobError: The factory failed in a worker, or workers die while they start.
        """
        pool = _Pool(factory, self.retries, deque(units))
        try:
            for number in range(min(self.workers, len(pool.queue))):
                pool.seats.append(pool.start(number))
            while pool.busy(stop()):
                yield from pool.turn(stop())
            pool.dismiss()
        finally:
            pool.kill()


class _Pool:
    """The parent's side of one `map`: seats, the queue, and who holds what."""

    def __init__(self, factory: WorkerFactory, retries: int, queue: deque[Unit]) -> None:
        self.factory = factory
        self.retries = retries
        self.queue = queue
        self.seats: list[_Seat] = []
        self.start_deaths = 0
        self.context = multiprocessing.get_context("spawn")

    def start(self, number: int) -> _Seat:
        """Start a worker process."""
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=serve, args=(theirs, self.factory, number, os.getpid()), daemon=True
        )
        process.start()
        theirs.close()
        return _Seat(number, process, ours)

    def busy(self, stopping: bool) -> bool:
        """Say whether there is anything left to wait for."""
        return any(seat.held for seat in self.seats) or bool(self.queue and not stopping)

    def turn(self, stopping: bool) -> Iterator[Outcome]:
        """Hand out work, wait a moment, and yield what came back."""
        for seat in self.seats:
            if stopping:
                self.drain(seat)
            else:
                self.feed(seat)
        ready = wait([seat.connection for seat in self.seats], timeout=_POLL_S)
        for seat in [seat for seat in self.seats if seat.connection in ready]:
            yield from self.hear(seat)
        for seat in list(self.seats):
            yield from self.check_time(seat)

    def feed(self, seat: _Seat) -> None:
        """Give a worker its unit and, where nobody else is idle for it, one to prepare."""
        while seat.ready and self.queue and len(seat.held) < 2:
            alone = self.queue[0].attempt > 1 or any(u.attempt > 1 for u in seat.held.values())
            idle = sum(not other.held for other in self.seats if other is not seat)
            if seat.held and (alone or len(self.queue) <= idle):
                return
            unit = self.queue.popleft()
            seat.held[unit.index] = unit
            try:
                seat.connection.send(unit)
            except OSError:
                return

    def drain(self, seat: _Seat) -> None:
        """Tell a worker to drop what it has not begun."""
        if seat.held and not seat.draining:
            seat.draining = True
            try:
                seat.connection.send("drain")
            except OSError:
                return

    def hear(self, seat: _Seat) -> Iterator[Outcome]:
        """Take one message of a worker, or notice that it died."""
        try:
            word, value = seat.connection.recv()
        except (EOFError, OSError):
            yield from self.replace_dead(seat)
            return
        if word == "failed":
            raise JobError(f"worker {seat.number} could not start: {value}")
        if word == "ready":
            seat.ready, self.start_deaths = True, 0
        elif word == "started":
            seat.current, seat.began = value, time.monotonic()
        elif word == "dropped":
            self.queue.appendleft(seat.held.pop(value))
        else:
            yield self.finished(seat, value)

    def finished(self, seat: _Seat, outcome: Outcome) -> Outcome:
        """Free the seat of the unit whose outcome came."""
        seat.held.pop(outcome.unit.index)
        seat.current = None
        return outcome

    def check_time(self, seat: _Seat) -> Iterator[Outcome]:
        """Kill a worker whose unit takes longer than it may."""
        unit = None if seat.current is None else seat.held.get(seat.current)
        if unit is None or unit.timeout_s is None:
            return
        if time.monotonic() - seat.began > unit.timeout_s:
            seat.held.pop(unit.index)
            for other in seat.held.values():
                self.queue.appendleft(other)
            seat.held.clear()
            self.reseat(seat)
            yield Outcome(unit, "timeout", message=f"took longer than {unit.timeout_s:g} s")

    def replace_dead(self, seat: _Seat) -> Iterator[Outcome]:
        """Begin a dead worker's units again or give them up, and fill its seat."""
        seat.process.join()
        cause = _cause_of_death(seat.process.exitcode)
        if not seat.ready:
            self.start_deaths += 1
            if self.start_deaths >= _START_DEATHS:
                raise JobError(f"{self.start_deaths} workers {cause} while starting.")
        for unit in seat.held.values():
            if unit.attempt > self.retries:
                text = f"its worker {cause}, {unit.attempt} times"
                yield Outcome(unit, "lost", message=text)
            else:
                self.queue.appendleft(replace(unit, attempt=unit.attempt + 1))
        seat.held.clear()
        self.reseat(seat)

    def reseat(self, seat: _Seat) -> None:
        """Put a fresh worker in a seat."""
        _kill(seat)
        self.seats[self.seats.index(seat)] = self.start(seat.number)

    def dismiss(self) -> None:
        """Let the workers flush and leave."""
        for seat in self.seats:
            try:
                seat.connection.send("leave")
            except OSError:
                continue
        for seat in self.seats:
            seat.process.join(timeout=30)

    def kill(self) -> None:
        """End whoever is still there."""
        for seat in self.seats:
            _kill(seat)


def _kill(seat: _Seat) -> None:
    if seat.process.is_alive():
        seat.process.kill()
    seat.process.join()
    seat.connection.close()


def _cause_of_death(code: Any) -> str:
    if isinstance(code, int) and code < 0:
        hint = " (often the system is out of memory)" if code == -9 else ""
        return f"was killed by signal {-code}{hint}"
    return f"ended with code {code}"
