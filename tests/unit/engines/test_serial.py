from __future__ import annotations

import threading
from typing import Any

import pytest

from speechadapt.engines.base import Unit
from speechadapt.engines.serial import SerialEngine


class Recorder:
    """Doubles numbers and remembers what happened in which order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.threads: set[str] = set()
        self.closed = False

    def prepare(self, unit: Unit) -> int:
        self.events.append(("prepare", unit.index))
        self.threads.add(threading.current_thread().name)
        if unit.payload == "bad file":
            raise ValueError("cannot be read")
        return unit.index

    def process(self, unit: Unit, prepared: Any) -> int:
        assert prepared == unit.index
        self.events.append(("process", unit.index))
        return 2 * unit.index

    def close(self) -> None:
        self.closed = True


def units(count: int) -> list[Unit]:
    return [Unit(number, None) for number in range(count)]


def test_results_come_in_order_and_the_worker_is_closed():
    worker = Recorder()
    outcomes = list(SerialEngine().map(lambda number: worker, units(5), lambda: False))
    assert [outcome.value for outcome in outcomes] == [0, 2, 4, 6, 8]
    assert worker.closed


def test_preparing_runs_ahead_but_no_further_than_allowed():
    worker = Recorder()
    engine = SerialEngine(ahead=2)
    for outcome in engine.map(lambda number: worker, units(6), lambda: False):
        begun = sum(word == "prepare" for word, _ in list(worker.events))
        assert begun <= outcome.unit.index + 2
    assert threading.main_thread().name not in worker.threads


def test_an_error_while_preparing_is_the_outcome_of_that_unit_alone():
    worker = Recorder()
    work = [Unit(0, None), Unit(1, "bad file"), Unit(2, None)]
    outcomes = list(SerialEngine().map(lambda number: worker, work, lambda: False))
    assert [outcome.kind for outcome in outcomes] == ["done", "raised", "done"]
    assert outcomes[1].message == "ValueError: cannot be read"


def test_stop_ends_after_the_unit_under_way():
    worker = Recorder()
    seen: list[int] = []
    for outcome in SerialEngine().map(lambda number: worker, units(5), lambda: len(seen) == 2):
        seen.append(outcome.unit.index)
    assert seen == [0, 1]
    assert worker.closed


def test_a_factory_that_fails_ends_the_run():
    def broken(number: int) -> Recorder:
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError, match="no such model"):
        list(SerialEngine().map(broken, units(1), lambda: False))
