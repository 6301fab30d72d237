"""Look at a job folder and after it: status, verify, retry, merge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from speechadapt.core.errors import JobError
from speechadapt.jobs.folder import JobFolder, find_folder
from speechadapt.jobs.kind import Kind
from speechadapt.jobs.ledger import Ledger, Record
from speechadapt.jobs.place import Place
from speechadapt.jobs.plan import Plan, read_plan
from speechadapt.jobs.report import Report, Totals, current_records, finish, write_rows


@dataclass(frozen=True)
class Finding:
    """Something `verify` does not like.

    Args:
        id: The item, or the file.
        problem: What is wrong.
    """

    id: str
    problem: str


def open_job(output: Path | str) -> tuple[JobFolder, Plan]:
    """Open a job that was begun.

    Args:
        output: Its output folder, its URL, or its `--job-folder`.

    Raises:
        JobError: There is none, or its plan is missing.
    """
    folder = find_folder(output)
    folder.check_exists()
    plan, _ = read_plan(folder.plan)
    if plan is None:
        raise JobError(f"the job in '{output}' has no plan yet; run `{folder.kind().name}` again.")
    return folder, plan


def count(output: Path | str) -> Totals:
    """Add up a job's ledger, without writing anything.

    Raises:
        JobError: There is no such job.
    """
    return _count(*open_job(output))


def _count(folder: JobFolder, plan: Plan) -> Totals:
    totals = Totals(items=len(plan.items))
    for record in current_records(plan, Ledger(folder.journal)):
        if record is None:
            totals.pending += 1
        else:
            totals.add(record)
    return totals


def verify(output: Path | str) -> list[Finding]:
    """Read every output again and compare it with the ledger.

    Checks that each item is done once, that its outputs are there, not empty where there should be
    something, and readable as what they are, and that the job's rows are those of the ledger in
    plan order.

    Returns:
        What is wrong; empty where all is well.

    Raises:
        JobError: There is no such job.
    """
    folder, plan = open_job(output)
    ledger, kind = Ledger(folder.journal), folder.kind()
    findings: list[Finding] = []
    rows: list[str] = []
    records = current_records(plan, ledger)
    for item, record in zip(plan.items, records, strict=True):
        if record is None:
            findings.append(Finding(item.id, "not done"))
            continue
        findings += [Finding(item.id, text) for text in _check_outputs(kind, folder.place, record)]
        rows.append(json.dumps(dict(record.row), ensure_ascii=False))
    findings += _check_twice(ledger)
    if len(rows) == len(plan.items):
        findings += _check_rows(folder.place, kind.rows(folder).name, rows)
    return findings


def merge(output: Path | str, missing_allowed: bool = False) -> Report:
    """Join the journals of all shards into the job's rows, `failed.jsonl` and the summary.

    Args:
        output: The job's output folder.
        missing_allowed: Leave out items that are not done yet instead of refusing.

    Raises:
        JobError: There is no such job, or items are not done yet.
    """
    folder, plan = open_job(output)
    totals = _count(folder, plan)
    if totals.pending and not missing_allowed:
        raise JobError(
            f"{totals.pending} of {totals.items} items in '{output}' are not done yet; run the "
            "shards that are missing, or give --allow-missing."
        )
    with folder.lock("report", wait_s=60.0):
        report = finish(folder, plan, folder.read_identity()["options"]["normaliser"])
        if totals.pending:
            write_rows(folder.kind().rows(folder), plan, Ledger(folder.journal))
            folder.place.push()
    return report


def _check_outputs(kind: Kind, place: Place, record: Record) -> list[str]:
    problems = []
    for name in record.outputs:
        try:
            with place.near(name) as path:
                problem = kind.check_output(path, record)
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
        if problem is not None:
            problems.append(f"'{name}' {problem}")
    return problems


def _check_twice(ledger: Ledger) -> list[Finding]:
    return [
        Finding(identifier, f"done {times} times with one attempt number")
        for identifier, times in sorted(ledger.repeated.items())
    ]


def _check_rows(place: Place, name: str, rows: list[str]) -> list[Finding]:
    try:
        with place.near(name) as path:
            found = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return [Finding(name, "missing though every item is done; `job merge` writes it")]
    if found == "".join(f"{row}\n" for row in rows):
        return []
    return [Finding(name, "does not hold the ledger's rows; `job merge` writes it again")]
