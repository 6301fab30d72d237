from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from speechadapt.engines.base import Unit
from speechadapt.engines.process import ProcessEngine


class Witness:
    """Says in which process it works; cannot be sent back where asked not to."""

    def __init__(self, folder: Path, number: int) -> None:
        (folder / f"started-{number}").touch()

    def prepare(self, unit: Unit) -> float:
        return time.monotonic()

    def process(self, unit: Unit, prepared: float) -> Any:
        if unit.payload == "unsendable":
            return lambda: None
        time.sleep(0.05)
        return os.getpid(), prepared, time.monotonic()

    def close(self) -> None: ...


def make(folder: Path, number: int) -> Witness:
    return Witness(folder, number)


@pytest.fixture
def factory(tmp_path: Path) -> Any:
    return partial(make, tmp_path)


def test_work_is_done_in_other_processes_one_model_each(factory, tmp_path):
    units = [Unit(number, None) for number in range(8)]
    outcomes = list(ProcessEngine(workers=2).map(factory, units, lambda: False))
    pids = {outcome.value[0] for outcome in outcomes}
    assert os.getpid() not in pids
    assert len(pids) <= 2
    assert len(list(tmp_path.glob("started-*"))) == 2


def test_the_next_unit_is_prepared_while_one_runs(factory):
    units = [Unit(number, None) for number in range(3)]
    outcomes = list(ProcessEngine(workers=1).map(factory, units, lambda: False))
    spans = {outcome.unit.index: outcome.value[1:] for outcome in outcomes}
    prepared_second, finished_first = spans[1][0], spans[0][1]
    assert prepared_second < finished_first


def test_a_result_that_cannot_be_sent_is_an_outcome_not_a_crash(factory):
    units = [Unit(0, "unsendable"), Unit(1, None)]
    outcomes = list(ProcessEngine(workers=1).map(factory, units, lambda: False))
    assert [outcome.kind for outcome in outcomes] == ["raised", "done"]
    assert "cannot be sent" in outcomes[0].message


def test_no_more_workers_than_units_are_started(factory, tmp_path):
    list(ProcessEngine(workers=4).map(factory, [Unit(0, None)], lambda: False))
    assert len(list(tmp_path.glob("started-*"))) == 1
