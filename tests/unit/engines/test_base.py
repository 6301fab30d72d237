from __future__ import annotations

from speechadapt.engines.base import Engine, Outcome, Unit, Worker
from speechadapt.engines.process import ProcessEngine
from speechadapt.engines.serial import SerialEngine


class Idle:
    def prepare(self, unit: Unit) -> None: ...

    def process(self, unit: Unit, prepared: object) -> None: ...

    def close(self) -> None: ...


def test_every_engine_and_worker_has_the_shape_of_its_protocol():
    assert isinstance(SerialEngine(), Engine)
    assert isinstance(ProcessEngine(), Engine)
    assert isinstance(Idle(), Worker)
    assert not isinstance(object(), Worker)


def test_a_unit_is_begun_for_the_first_time_without_a_limit():
    unit = Unit(3, "payload")
    assert (unit.attempt, unit.timeout_s) == (1, None)
    assert Outcome(unit, "done").message == ""
