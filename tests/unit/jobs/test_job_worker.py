"""What workers of all jobs share: finished files are moved, what is done is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from speechadapt.engines.base import Unit
from speechadapt.jobs.job_worker import JobWorker, WorkerSetup
from speechadapt.jobs.ledger import Journal, Ledger, Record
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.plan import Limits, PlanItem
from speechadapt.jobs.result import Result
from speechadapt.jobs.run import Assignment

ITEMS = tuple(PlanItem(name, name, name, name, key="k") for name in "ab")


class Maker(JobWorker):
    """Makes a file per item."""

    released = False

    def prepare(self, unit: Unit) -> None:
        return None

    def work(self, assignment: Assignment, prepared: Any) -> Sequence[Result]:
        self.staging.mkdir(parents=True, exist_ok=True)
        results = []
        for item in assignment.items:
            made = self.staging / f"made-{item.id}"
            made.write_bytes(b"sound")
            files = {f"{item.id}.flac": made}
            results.append(
                Result(item, "ok", {"id": item.id}, files, audio_s=1.0, model_audio_s=1.0)
            )
        return results

    def release(self) -> None:
        self.released = True


def new_worker(output: Path) -> Maker:
    options = TranscribeOptions(output=str(output))
    return Maker(WorkerSetup(options, Limits(), "1-of-1"), 0)


@pytest.fixture
def worker(tmp_path: Path) -> Maker:
    return new_worker(tmp_path)


def test_a_finished_file_is_moved_to_its_place(worker: Maker, tmp_path: Path):
    result = worker.process(Unit(0, Assignment(0, ITEMS, frozenset("ab"))), None)
    assert [done.id for done in result.items] == ["a", "b"]
    assert (tmp_path / "a.flac").read_bytes() == b"sound"
    assert not list(worker.staging.iterdir())
    (record,) = Ledger(tmp_path / ".speechadapt/journal").records(["a"])
    assert record is not None
    assert record.outputs == ("a.flac",)


def test_a_line_is_written_after_its_outputs(
    worker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    append, there = Journal.append, []

    def watch(journal: Journal, records: Sequence[Record]) -> None:
        there.extend((tmp_path / name).is_file() for record in records for name in record.outputs)
        append(journal, records)

    monkeypatch.setattr(Journal, "append", watch)
    worker.process(Unit(0, Assignment(0, ITEMS, frozenset("ab"))), None)
    assert there == [True, True]


def test_what_cannot_be_written_is_a_failure_of_its_item_alone(worker: Maker, tmp_path: Path):
    (tmp_path / "a.flac").mkdir()
    result = worker.process(Unit(0, Assignment(0, ITEMS, frozenset("ab"))), None)
    assert [done.status for done in result.items] == ["failed", "ok"]


def test_only_the_first_unit_with_sound_warms_up(worker: Maker):
    units = [Unit(n, Assignment(0, ITEMS[n : n + 1], frozenset("ab"[n]))) for n in range(2)]
    assert [worker.process(unit, None).first for unit in units] == [True, False]


def test_closing_lets_go_of_what_the_job_holds(worker: Maker):
    worker.close()
    assert worker.released
