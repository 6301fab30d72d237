"""The engine for a cluster: one Ray actor for each worker, on whatever nodes Ray finds for them.

Ray places, starts and watches the actors; what is done and what is begun again is decided here, as
in the process engine, since durable progress is the caller's. An actor holds a unit and prepares
one more meanwhile, so what is under way never exceeds two units a worker, and units are taken from
their source only as they are needed. An actor that dies is replaced by one with a new number:
should the old one live on unseen, the two share no file. A unit whose worker died is begun again
alone; one that has ended as many workers as is allowed is given up as `lost`. A node that goes away
takes its workers along and is blamed on no unit.

Training over several nodes does not run here but with torchrun.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from speechadapt.core.errors import JobError, MissingExtra
from speechadapt.engines.base import Outcome, OutcomeKind, Unit, Worker, WorkerFactory
from speechadapt.engines.serial import run_unit

_POLL_S = 0.2
_START_DEATHS = 3
_LEAVE_S = 30.0
_STORE_BYTES = 128 * 1024 * 1024
_ENVIRONMENT = ("SPEECHADAPT_", "HF_")


@dataclass(frozen=True)
class RayEngine:
    """Runs units on the nodes of a Ray cluster.

    Args:
        workers: Actors, one worker each; with accelerators in the cluster, one device each.
        address: `local` starts Ray on this machine for the run, `auto` joins the cluster that runs
            here, anything else is the address of one. A caller that is connected stays so.
        retries: How often a unit may be begun again after its worker died.
        accelerators: Whether workers ask for an accelerator where the cluster has any.
        start_s: Seconds after which a run without any worker is given up.
    """

    workers: int = 2
    address: str = "auto"
    retries: int = 2
    accelerators: bool = True
    start_s: float = 600.0

    def map(
        self, factory: WorkerFactory, units: Iterable[Unit], stop: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """Run every unit and yield its outcome, in any order (see `Engine.map`).

        Raises:
            JobError: There is no cluster, the factory failed in a worker, or no worker starts.
            MissingExtra: Ray is not installed.
        """
        with _connected(self.address, self.workers) as ray:
            pool = _Pool(ray, self, factory, iter(units))
            try:
                while pool.turn(stop()):
                    yield from pool.wait()
                pool.dismiss()
            finally:
                pool.kill()


class _Holder:
    """What lives in an actor: the worker, and a thread that prepares its next unit."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self._prepared: dict[int, Future[Any]] = {}
        self._worker: Worker | None = None

    def start(self, factory: WorkerFactory, number: int) -> tuple[str, str]:
        """Build the worker; return the node it is on, and what went wrong."""
        import ray

        node: str = ray.get_runtime_context().get_node_id()
        try:
            self._worker = factory(number)
        except Exception as error:
            return node, f"{type(error).__name__}: {error}"
        return node, ""

    def run(self, unit: Unit, ahead: Unit | None) -> tuple[OutcomeKind, Any, str]:
        """Process a unit while the next one is prepared."""
        worker = self._worker
        assert worker is not None
        prepared = self._prepared.pop(unit.index, None)
        self._prepared.clear()
        if prepared is None:
            prepared = self._executor.submit(worker.prepare, unit)
        if ahead is not None:
            self._prepared[ahead.index] = self._executor.submit(worker.prepare, ahead)
        outcome = run_unit(worker, unit, prepared)
        return outcome.kind, outcome.value, outcome.message

    def leave(self) -> None:
        """Flush and let go."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._worker is not None:
            self._worker.close()


@dataclass
class _Seat:
    """An actor, the call it is busy with, and the units it holds."""

    actor: Any
    call: Any
    node: str = ""
    ready: bool = False
    current: Unit | None = None
    ahead: Unit | None = None
    began: float = 0.0


class _Pool:
    """The driver's side of one `map`: seats, the queue, and who holds what."""

    def __init__(
        self, ray: Any, engine: RayEngine, factory: WorkerFactory, source: Iterator[Unit]
    ) -> None:
        self._ray, self._engine, self._source = ray, engine, source
        self._factory = ray.put(factory)
        self._numbers = itertools.count()
        self._queue: deque[Unit] = deque()
        self._blame: Counter[int] = Counter()
        self._start_deaths = 0
        self._any_ready_s = time.monotonic()
        self._fill()
        self._seats = [self._start() for _ in range(min(engine.workers, len(self._queue)))]

    def turn(self, stopping: bool) -> bool:
        """Hand out work; say whether there is anything left to wait for."""
        for seat in self._seats:
            if stopping and seat.ahead is not None:
                self._queue.appendleft(seat.ahead)
                seat.ahead = None
        if not stopping:
            self._fill()
            for seat in self._seats:
                self._feed(seat)
        return any(seat.current for seat in self._seats) or bool(self._queue and not stopping)

    def wait(self) -> Iterator[Outcome]:
        """Wait a moment and yield what came back."""
        calls = {seat.call: seat for seat in self._seats if seat.call is not None}
        done, _ = self._ray.wait(list(calls), num_returns=1, timeout=_POLL_S)
        for call in done:
            yield from self._hear(calls[call])
        for seat in list(self._seats):
            yield from self._check_time(seat)
        if any(seat.ready for seat in self._seats):
            self._any_ready_s = time.monotonic()
        elif time.monotonic() - self._any_ready_s > self._engine.start_s:
            free, asked = self._ray.available_resources(), self._demand()
            raise JobError(
                f"no worker could start within {self._engine.start_s:g} s: each asks for "
                f"{asked['num_cpus']} CPU and {asked['num_gpus']} GPU, the cluster has "
                f"{free.get('CPU', 0):g} and {free.get('GPU', 0):g} free."
            )

    def dismiss(self) -> None:
        """Let the workers flush and leave."""
        leaving = [seat.actor.leave.remote() for seat in self._seats if seat.ready]
        self._ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_S) if leaving else None

    def kill(self) -> None:
        """End whoever is still there."""
        for seat in self._seats:
            self._ray.kill(seat.actor)

    def _fill(self) -> None:
        """Take from the source what may be handed out soon."""
        while len(self._queue) < 2 * self._engine.workers:
            unit = next(self._source, None)
            if unit is None:
                return
            self._queue.append(unit)

    def _start(self) -> _Seat:
        actor = self._ray.remote(_Holder).options(max_restarts=0, **self._demand()).remote()
        return _Seat(actor, actor.start.remote(self._factory, next(self._numbers)))

    def _demand(self) -> dict[str, int]:
        devices = self._ray.cluster_resources().get("GPU", 0)
        return {"num_cpus": 1, "num_gpus": int(devices > 0 and self._engine.accelerators)}

    def _feed(self, seat: _Seat) -> None:
        """Give an idle worker its unit and, where nobody else is idle for it, one to prepare."""
        if not seat.ready or seat.current is not None:
            return
        if seat.ahead is not None:
            seat.current, seat.ahead = seat.ahead, None
        elif self._queue:
            seat.current = self._queue.popleft()
        else:
            return
        idle = sum(other.current is None for other in self._seats)
        if len(self._queue) > idle and seat.current.attempt == self._queue[0].attempt == 1:
            seat.ahead = self._queue.popleft()
        seat.began = time.monotonic()
        seat.call = seat.actor.run.remote(seat.current, seat.ahead)

    def _hear(self, seat: _Seat) -> Iterator[Outcome]:
        """Take the reply of a worker, or notice that it died."""
        from ray.exceptions import RayError, RayTaskError

        unit = seat.current
        try:
            reply = self._ray.get(seat.call)
        except RayTaskError as error:
            seat.call = None
            if unit is None:
                raise JobError(f"a worker could not start: {_first_line(error)}") from error
            seat.current = None
            text = f"the result cannot be sent to the driver: {_first_line(error)}"
            yield Outcome(unit, "raised", message=text)
            return
        except RayError:
            yield from self._replace_dead(seat)
            return
        seat.call = None
        if unit is None:
            seat.node, problem = reply
            if problem:
                raise JobError(f"a worker could not start: {problem}")
            seat.ready, self._start_deaths = True, 0
        else:
            seat.current = None
            yield Outcome(unit, *reply)

    def _check_time(self, seat: _Seat) -> Iterator[Outcome]:
        """Kill a worker whose unit takes longer than it may."""
        unit = seat.current
        if unit is None or unit.timeout_s is None:
            return
        if time.monotonic() - seat.began > unit.timeout_s:
            if seat.ahead is not None:
                self._queue.appendleft(seat.ahead)
            self._reseat(seat)
            yield Outcome(unit, "timeout", message=f"took longer than {unit.timeout_s:g} s")

    def _replace_dead(self, seat: _Seat) -> Iterator[Outcome]:
        """Begin a dead worker's units again or give them up, and fill its seat."""
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        node_gone = bool(seat.node) and seat.node not in alive
        if not seat.ready:
            self._start_deaths += 1
            if self._start_deaths >= _START_DEATHS:
                raise JobError(f"{self._start_deaths} workers died while starting.")
        for unit in (seat.ahead, seat.current):
            if unit is None:
                continue
            self._blame[unit.index] += not node_gone
            if self._blame[unit.index] > self._engine.retries:
                times = self._blame[unit.index]
                yield Outcome(unit, "lost", message=f"its worker died, {times} times")
            else:
                self._queue.appendleft(replace(unit, attempt=unit.attempt + 1))
        self._reseat(seat)

    def _reseat(self, seat: _Seat) -> None:
        """Put a fresh worker in a seat."""
        self._ray.kill(seat.actor)
        self._seats[self._seats.index(seat)] = self._start()


@contextlib.contextmanager
def _connected(address: str, workers: int) -> Iterator[Any]:
    """Yield the `ray` module, connected; leave as it was found."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "--engine ray") from error
    if ray.is_initialized():
        yield ray
        return
    # Ray takes the signals for itself; a run ends after the unit under way when they come.
    names = (signal.SIGINT, signal.SIGTERM)
    handlers = {name: signal.getsignal(name) for name in names}
    try:
        _connect(ray, address, workers)
        for name, handler in handlers.items():
            signal.signal(name, handler)
        yield ray
    finally:
        ray.shutdown()
        for name, handler in handlers.items():
            signal.signal(name, handler)


def _connect(ray: Any, address: str, workers: int) -> None:
    try:
        ray.init(**_arguments(address, workers))
    except ConnectionError as error:
        raise JobError(
            f"--address {address} leads to no Ray cluster: {_first_line(error)} Start one with "
            "'ray start --head', or give --address local."
        ) from error
    except Exception as error:  # Ray raises bare exceptions when a node does not come up in time
        raise JobError(
            f"Ray did not start for --address {address}: {_first_line(error)}"
        ) from error


def _arguments(address: str, workers: int) -> dict[str, Any]:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        own = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        return {"address": "local", **own, **quiet}
    passed = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
    return {"address": address, "runtime_env": {"env_vars": passed}, **quiet}


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
