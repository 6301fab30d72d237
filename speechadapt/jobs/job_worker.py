"""What every worker of a job does: lock, journal, leaving out what is done, writing, recording."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from speechadapt.engines.base import Unit, Worker
from speechadapt.jobs.commit import ItemFiles
from speechadapt.jobs.copies import Copies
from speechadapt.jobs.folder import JobFolder, folder_of
from speechadapt.jobs.job_options import JobOptions
from speechadapt.jobs.kind import kind_named
from speechadapt.jobs.ledger import Ledger, Record
from speechadapt.jobs.load import device_of
from speechadapt.jobs.plan import Limits
from speechadapt.jobs.result import Result
from speechadapt.jobs.rows import make_row
from speechadapt.jobs.run import Assignment, ItemDone, UnitResult


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to start; picklable.

    Args:
        options: What was asked for.
        limits: What a batch may hold.
        shard: Names the driver in journals and locks (`1-of-1`).
        threads: CPU threads of this worker; None as torch does.
        run: The driver's run, where each has a folder of its own (see `place.Place`).
    """

    options: Any
    limits: Limits
    shard: str
    threads: int | None = None
    run: str = ""

    @property
    def folder(self) -> JobFolder:
        """The job's folder."""
        return folder_of(self.options, self.shard, self.run)


def start_worker(setup: WorkerSetup, number: int) -> Worker:
    """Load the model and start a worker in a process of its own.

    Args:
        setup: What it needs.
        number: The worker's number.
    """
    asked: JobOptions = setup.options
    kind = kind_named(asked.job)
    options = replace(asked, device=device_of(asked.device, number))
    model = kind.load(options, setup.threads)
    return kind.worker(setup, model, number, locked=True)


class JobWorker(ABC):
    """Does assignments (see `engines.base.Worker`).

    Args:
        setup: What it needs.
        number: The worker's number.
        locked: Whether to hold the workers' lock, so that a later driver waits for this process.

    Attributes:
        staging: A folder of its own on the file system of the outputs, emptied when a run begins.
        copies: Lends recordings behind URLs as local files.
    """

    def __init__(self, setup: WorkerSetup, number: int, locked: bool = False) -> None:
        self._setup, self._number = setup, number
        self._folder = setup.folder
        name = f"{setup.shard}-worker-{number}"
        self._lock = self._folder.lock(f"workers-{setup.shard}", shared=True) if locked else None
        if self._lock is not None:
            self._lock.__enter__()
        self.staging = self._folder.state / "staging" / name
        self.copies = Copies(self.staging / "in")
        self._journal = self._folder.open_journal(name)
        self._first = True

    @abstractmethod
    def prepare(self, unit: Unit) -> Any:
        """Do what may be done ahead, in a thread beside `process` of an earlier unit."""

    @abstractmethod
    def work(self, assignment: Assignment, prepared: Any) -> Sequence[Result]:
        """Do the items of an assignment.

        Args:
            assignment: What to do; `todo` holds what is still to be written.
            prepared: What `prepare` returned.

        Returns:
            A result per item of `todo`, and of others where they took part.
        """

    @abstractmethod
    def release(self) -> None:
        """Let go of what the job's own worker holds."""

    def process(self, unit: Unit, prepared: Any) -> UnitResult:
        """Do an assignment, write its outputs, journal it."""
        assignment: Assignment = unit.payload
        known: Mapping[str, ItemDone] = {}
        if unit.attempt > 1 or assignment.recheck:
            self._folder.place.pull()
            known = _already_done(Ledger(self._folder.journal), assignment)
        assignment = replace(assignment, todo=assignment.todo.difference(known))
        results = self.work(assignment, prepared)
        written = [result for result in results if result.item.id in assignment.todo]
        began = time.perf_counter()
        records = self._write(written, assignment, unit.attempt)
        write_s = time.perf_counter() - began
        audio_s = fsum(result.model_audio_s for result in results)
        first = self._first and audio_s > 0
        self._first = self._first and not first
        done = tuple(ItemDone(record.id, record.status, record.audio_s) for record in records)
        return UnitResult(
            items=(*known.values(), *done),
            worker=self._number,
            audio_s=audio_s,
            decode_s=fsum(result.decode_s for result in results),
            model_s=fsum(result.model_s for result in results),
            write_s=write_s + fsum(result.write_s for result in results),
            first=first,
        )

    def close(self) -> None:
        """Close the journal and let go of the lock."""
        self.release()
        self.copies.clear()
        self._journal.close()
        if self._lock is not None:
            self._lock.__exit__(None, None, None)

    def _write(
        self, results: Sequence[Result], assignment: Assignment, attempt: int
    ) -> list[Record]:
        files = [ItemFiles(result.item.id, result.files) for result in results if result.files]
        problems = self._folder.place.commit(self.staging, files)
        records = []
        for result in results:
            attempts = assignment.attempts.get(result.item.id, 0) + attempt
            problem = problems.get(result.item.id)
            records.append(_record(result, attempts, problem))
        if records:
            self._journal.append(records)
        return records


def _record(result: Result, attempts: int, problem: str | None) -> Record:
    item = result.item
    if problem is not None:
        row = make_row(item, "failed", reason="WRITE", duration=result.audio_s or None)
        return Record(item.id, item.key, "failed", "WRITE", problem, attempts=attempts, row=row)
    return Record(
        id=item.id,
        key=item.key,
        status=result.status,
        reason=result.reason,
        message=result.message,
        flags=result.flags,
        attempts=attempts,
        audio_s=round(result.audio_s, 4),
        decode_s=round(result.decode_s, 4),
        model_s=round(result.model_s, 4),
        speech_s=result.speech_s,
        covered_s=result.covered_s,
        outputs=tuple(result.files),
        row=result.row,
    )


def _already_done(ledger: Ledger, assignment: Assignment) -> dict[str, ItemDone]:
    keys = {item.id: item.key for item in assignment.items}
    done = {}
    for name in assignment.todo:
        entry = ledger.entries.get(name)
        newer = entry is not None and entry.attempts > assignment.attempts.get(name, 0)
        if entry is not None and newer and entry.key == keys[name]:
            done[name] = ItemDone(name, entry.status, entry.audio_s)
    return done
