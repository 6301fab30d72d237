"""What every engine promises, whatever it schedules on."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import JobError
from speechadapt.engines.base import Engine, Unit
from speechadapt.engines.process import ProcessEngine
from speechadapt.engines.serial import SerialEngine

ENGINES: dict[str, Engine] = {
    "serial": SerialEngine(),
    "process": ProcessEngine(workers=2, retries=2),
}
PROCESS = ENGINES["process"]


class Squarer:
    """Squares numbers; some payloads make it misbehave. It notes every attempt on disk."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number

    def prepare(self, unit: Unit) -> Any:
        return unit.payload

    def process(self, unit: Unit, prepared: Any) -> int:
        (self.folder / f"{unit.index}-{unit.attempt}-{os.getpid()}").touch()
        if prepared == "raise":
            raise ValueError("this item is bad")
        if prepared == "die" or (prepared == "die once" and unit.attempt == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if prepared == "hang":
            time.sleep(60)
        return unit.index**2

    def close(self) -> None:
        (self.folder / f"closed-{self.number}").touch()


def make_squarer(folder: Path, number: int) -> Squarer:
    return Squarer(folder, number)


def make_nothing(number: int) -> Squarer:
    raise ValueError("there is no model here")


def die_at_once(number: int) -> Squarer:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def run(engine: Engine, folder: Path, payloads: list[Any], **limits: Any) -> dict[int, Any]:
    work = [Unit(index, payload, **limits) for index, payload in enumerate(payloads)]
    outcomes = list(engine.map(partial(make_squarer, folder), work, lambda: False))
    assert len(outcomes) == len({outcome.unit.index for outcome in outcomes})
    return {outcome.unit.index: outcome for outcome in outcomes}


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


def test_every_unit_comes_back_once_in_whatever_order(engine, tmp_path):
    outcomes = run(engine, tmp_path, [None] * 9)
    assert {index: outcome.value for index, outcome in outcomes.items()} == {
        index: index**2 for index in range(9)
    }


def test_an_item_that_raises_costs_no_other(engine, tmp_path):
    outcomes = run(engine, tmp_path, [None, "raise", None, None])
    assert [outcomes[index].kind for index in range(4)] == ["done", "raised", "done", "done"]
    assert outcomes[1].message == "ValueError: this item is bad"


def test_no_work_is_no_error(engine, tmp_path):
    assert run(engine, tmp_path, []) == {}


def test_stop_yields_what_is_under_way_and_resume_does_the_rest(engine, tmp_path):
    work = [Unit(index, None) for index in range(12)]
    seen: set[int] = set()
    for outcome in engine.map(partial(make_squarer, tmp_path), work, lambda: len(seen) >= 3):
        seen.add(outcome.unit.index)
    begun = {int(path.name.split("-")[0]) for path in tmp_path.glob("[0-9]*")}
    assert seen == begun
    assert 3 <= len(seen) < 12
    rest = [unit for unit in work if unit.index not in seen]
    outcomes = list(engine.map(partial(make_squarer, tmp_path), rest, lambda: False))
    assert {outcome.unit.index for outcome in outcomes} | seen == set(range(12))
    assert len(list(tmp_path.glob("[0-9]*"))) == 12


def test_workers_are_closed(engine, tmp_path):
    run(engine, tmp_path, [None] * 4)
    assert list(tmp_path.glob("closed-*"))


def test_a_killed_worker_is_replaced_and_its_unit_begun_again(tmp_path):
    outcomes = run(PROCESS, tmp_path, [None, "die once", None, None, None])
    assert {outcome.kind for outcome in outcomes.values()} == {"done"}
    assert outcomes[1].unit.attempt == 2


def test_a_unit_that_keeps_killing_workers_is_given_up_and_nothing_else(tmp_path):
    outcomes = run(PROCESS, tmp_path, [None, "die", None, None, None])
    assert [outcomes[index].kind for index in range(5)] == ["done", "lost", *["done"] * 3]
    assert len(list(tmp_path.glob("1-*"))) == 3
    assert "killed by signal 9" in outcomes[1].message


def test_a_unit_that_takes_too_long_ends_its_worker_alone(tmp_path):
    outcomes = run(PROCESS, tmp_path, [None, "hang", None, None], timeout_s=1.0)
    assert [outcomes[index].kind for index in range(4)] == ["done", "timeout", "done", "done"]
    assert "1 s" in outcomes[1].message


def test_a_factory_that_fails_in_a_worker_names_the_cause():
    with pytest.raises(JobError, match="there is no model here"):
        list(PROCESS.map(make_nothing, [Unit(0, None)], lambda: False))


def test_workers_that_die_while_starting_end_the_run():
    with pytest.raises(JobError, match=r"killed by signal 9 .* while starting"):
        list(PROCESS.map(die_at_once, [Unit(0, None)], lambda: False))
