from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from speechadapt.engines.base import Outcome, Unit
from speechadapt.jobs.ledger import Entry, Journal, Ledger
from speechadapt.jobs.plan import Limits, Plan, PlanItem, make_plan
from speechadapt.jobs.progress import Tally
from speechadapt.jobs.run import Assignment, ItemDone, Policy, Run, UnitResult, assign


class Quiet:
    def show(self, tally: Tally) -> None: ...

    def close(self, tally: Tally) -> None: ...


class Scripted:
    """An engine that loses some items and fails others, without any process."""

    def __init__(self, lost: set[str] = frozenset(), failed: set[str] = frozenset()) -> None:
        self.lost, self.failed = lost, failed
        self.units: list[Assignment] = []

    def map(
        self, factory: object, units: Iterable[Unit], stop: Callable[[], bool]
    ) -> Iterator[Outcome]:
        for unit in units:
            if stop():
                return
            self.units.append(unit.payload)
            if unit.payload.todo & self.lost:
                yield Outcome(unit, "lost", message="its worker was killed by signal 9")
                continue
            done = tuple(
                ItemDone(name, "failed" if name in self.failed else "ok", 1.0)
                for name in sorted(unit.payload.todo)
            )
            yield Outcome(unit, "done", UnitResult(done, audio_s=float(len(done))))


def item(name: str, **values: object) -> PlanItem:
    return PlanItem(name, name, name, name, key="k", header_s=1.0, **values)  # type: ignore[arg-type]


@pytest.fixture
def plan() -> Plan:
    return make_plan([item(f"i{n}") for n in range(8)], Limits(batch_size=4))


def everything(plan: Plan) -> frozenset[str]:
    return frozenset(found.id for found in plan.items)


def make_run(tmp_path: Path, engine: Scripted, **policy: object) -> tuple[Run, Tally]:
    tally = Tally(items=8)
    rules = {"timeout_s": None, "limit": None, "interrupted": lambda: False} | policy
    journal = Journal(tmp_path / "driver.jsonl")
    run = Run(engine, lambda number: None, journal, Policy(**rules), Quiet(), tally)  # type: ignore[arg-type]
    return run, tally


def test_a_batch_that_was_lost_is_done_again_item_by_item(tmp_path, plan):
    engine = Scripted(lost={"i1"})
    run, tally = make_run(tmp_path, engine)
    stats = run.execute(assign(plan, {}, everything(plan), frozenset(), (0, 1)))
    assert [sorted(unit.todo) for unit in engine.units] == [
        ["i0", "i1", "i2", "i3"],
        ["i4", "i5", "i6", "i7"],
        ["i0"],
        ["i1"],
        ["i2"],
        ["i3"],
    ]
    assert all(unit.recheck for unit in engine.units[2:])
    assert (tally.items_done, tally.failed, stats.failed) == (8, 1, 1)
    (record,) = Ledger(tmp_path).records(["i1"])
    assert record is not None
    assert (record.status, record.reason) == ("failed", "MODEL")
    assert record.message == "its worker was killed by signal 9"


def test_time_that_ran_out_has_its_own_reason(tmp_path, plan):
    class Late(Scripted):
        def map(self, factory, units, stop):
            for unit in units:
                yield Outcome(unit, "timeout", message="took longer than 2 s")

    run, _ = make_run(tmp_path, Late(), timeout_s=2.0)
    run.execute(assign(plan, {}, everything(plan), frozenset(), (0, 1)))
    reasons = {record.reason for record in Ledger(tmp_path).records(everything(plan)) if record}
    assert reasons == {"TIMEOUT"}


def test_the_limit_stops_the_run(tmp_path, plan):
    engine = Scripted(failed={"i0", "i1"})
    run, _ = make_run(tmp_path, engine, limit=1)
    assert run.execute(assign(plan, {}, everything(plan), frozenset(), (0, 1))).limit_hit
    assert len(engine.units) == 1


def test_an_interrupted_run_begins_nothing_more(tmp_path, plan):
    engine = Scripted(lost={"i1"})
    run, _ = make_run(tmp_path, engine, interrupted=lambda: len(engine.units) >= 2)
    run.execute(assign(plan, {}, everything(plan), frozenset(), (0, 1)))
    assert len(engine.units) == 2


def test_items_left_out_by_the_plan_get_a_line(tmp_path):
    run, _ = make_run(tmp_path, Scripted())
    run.skip([item("short", skip="0.1 s, shorter than 1 s")])
    (record,) = Ledger(tmp_path).records(["short"])
    assert record is not None
    assert (record.status, record.message) == ("skipped", "0.1 s, shorter than 1 s")


def test_a_resumed_batch_keeps_its_items_and_names_what_is_missing(plan):
    todo = frozenset({"i1"})
    (found,) = assign(plan, {}, todo, frozenset(), (0, 1))
    assert [one.id for one in found.items] == ["i0", "i1", "i2", "i3"]
    assert found.todo == todo


def test_a_retried_item_is_decoded_alone_and_its_attempts_are_known(plan):
    entries = {"i1": Entry("k", "failed", "MODEL", 2, 1.0, 0, 0)}
    todo = frozenset({"i1"})
    (found,) = assign(plan, entries, todo, todo, (0, 1))
    assert [one.id for one in found.items] == ["i1"]
    assert found.attempts == {"i1": 2}


def test_shards_share_the_batches_without_overlap(plan):
    parts = [assign(plan, {}, everything(plan), frozenset(), (n, 2)) for n in range(2)]
    batches = [[one.batch for one in part] for part in parts]
    assert batches == [[0], [1]]
