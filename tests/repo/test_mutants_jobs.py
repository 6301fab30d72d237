"""Plants defects in a job's journal and lease, and shows that a test of theirs catches each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from speechadapt.jobs.job_worker import JobWorker
from speechadapt.jobs.lease import Lease
from speechadapt.jobs.ledger import Ledger, Record
from speechadapt.jobs.place import LocalPlace
from tests.unit.jobs import test_job_worker, test_lease, test_ledger

Patch = pytest.MonkeyPatch
Check = Callable[[Path], None]


def a_line_follows_its_outputs(folder: Path) -> None:
    with Patch.context() as patch:
        worker = test_job_worker.new_worker(folder)
        test_job_worker.test_a_line_is_written_after_its_outputs(worker, folder, patch)


a_torn_line_is_closed_off = partial(
    test_ledger.test_a_torn_last_line_is_passed_over_and_closed_off, lost=5
)
the_later_attempt_counts = partial(
    test_ledger.test_the_later_attempt_counts_whatever_journal_it_stands_in, first="a", second="b"
)


def lease_that_never_lapses(patch: Patch) -> None:
    patch.setattr(Lease, "_lapsed", lambda self, facts: False)


def lease_taken_from_the_living(patch: Patch) -> None:
    patch.setattr(Lease, "_lapsed", lambda self, facts: True)


def lease_without_heartbeat(patch: Patch) -> None:
    patch.setattr(Lease, "_beat", lambda self: self._ended.wait())


def first_attempt_counts(patch: Patch) -> None:
    note = Ledger._note

    def wrong(self: Ledger, number: int, offset: int, row: Mapping[str, Any]) -> None:
        if row["id"] not in self.entries:
            note(self, number, offset, row)

    patch.setattr(Ledger, "_note", wrong)


def torn_line_left_open(patch: Patch) -> None:
    patch.setattr(os, "pread", lambda *_: b"\n")


def journalled_before_the_outputs(patch: Patch) -> None:
    write, commit = JobWorker._write, LocalPlace.commit

    def wrong(self: JobWorker, *given: Any) -> Sequence[Record]:
        left: list[Any] = []
        with Patch.context() as late:
            late.setattr(LocalPlace, "commit", lambda *files: left.append(files) or {})
            records = write(self, *given)
        for files in left:
            commit(*files)
        return records

    patch.setattr(JobWorker, "_write", wrong)


PLANTED: list[tuple[Callable[[Patch], None], Check]] = [
    (
        lease_that_never_lapses,
        test_lease.test_a_lease_of_another_host_is_kept_until_it_lapses,
    ),
    (
        lease_taken_from_the_living,
        test_lease.test_a_lease_of_another_host_is_kept_until_it_lapses,
    ),
    (lease_without_heartbeat, test_lease.test_heartbeats_keep_a_lease_alive),
    (first_attempt_counts, the_later_attempt_counts),
    (torn_line_left_open, a_torn_line_is_closed_off),
    (journalled_before_the_outputs, a_line_follows_its_outputs),
]


def is_caught(check: Check, folder: Path) -> bool:
    folder.mkdir()
    try:
        check(folder)
    except (Exception, pytest.fail.Exception):  # a defect that raises is caught too
        return True
    return False


@pytest.mark.parametrize(("plant", "check"), PLANTED, ids=lambda one: getattr(one, "__name__", ""))
def test_a_planted_defect_is_caught(plant, check, monkeypatch, tmp_path) -> None:
    assert not is_caught(check, tmp_path / "sound"), "the check fails without any defect"
    plant(monkeypatch)
    assert is_caught(check, tmp_path / "planted")
