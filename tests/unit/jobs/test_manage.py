from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.errors import JobError
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Journal, Record
from speechadapt.jobs.manage import count, merge, verify
from speechadapt.jobs.plan import Limits, PlanItem, make_plan, write_plan
from speechadapt.jobs.rows import make_row

ITEMS = [PlanItem(name, f"{name}.wav", name, name, key="k", header_s=1.0) for name in "ab"]


def record(item: PlanItem) -> Record:
    row = make_row(item, "ok", pred_text="yes", duration=1.0)
    return Record(item.id, item.key, "ok", outputs=(f"{item.id}.txt", f"{item.id}.json"), row=row)


def journal(folder: JobFolder, *items: PlanItem, name: str = "w") -> None:
    written = Journal(folder.journal / f"{name}.jsonl")
    written.append([record(item) for item in items])
    written.close()


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path)
    folder.claim({"options": {"normaliser": "verbatim"}})
    write_plan(folder.plan, make_plan(ITEMS, Limits()), 0, ITEMS)
    for item in ITEMS:
        (tmp_path / f"{item.id}.txt").write_text("yes\n")
        (tmp_path / f"{item.id}.json").write_text('{"text": "yes"}')
    return folder


def test_a_whole_job_has_no_findings(job):
    journal(job, *ITEMS)
    merge(job.output)
    assert verify(job.output) == []
    assert count(job.output).statuses["ok"] == 2


def test_merge_refuses_while_items_are_missing_unless_told(job):
    journal(job, ITEMS[0])
    with pytest.raises(JobError, match="1 of 2 items"):
        merge(job.output)
    assert merge(job.output, missing_allowed=True).totals.pending == 1
    assert len(job.transcripts.read_text().splitlines()) == 1
    assert [finding.problem for finding in verify(job.output)] == ["not done"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", None, "'a.txt' cannot be read"),
        ("a.txt", " \n", "'a.txt' is empty"),
        ("b.json", '{"text": ', "'b.json' is not JSON"),
    ],
)
def test_outputs_that_are_gone_empty_or_broken_are_found(job, name, content, problem):
    journal(job, *ITEMS)
    merge(job.output)
    path = job.output / name
    path.unlink() if content is None else path.write_text(content)
    (finding,) = verify(job.output)
    assert finding.id == name[0]
    assert problem in finding.problem


def test_an_item_done_twice_and_altered_rows_are_found(job):
    journal(job, *ITEMS)
    merge(job.output)
    journal(job, ITEMS[0], name="v")
    job.transcripts.write_text(job.transcripts.read_text().replace("yes", "no"))
    assert {finding.id for finding in verify(job.output)} == {"a", "transcripts.jsonl"}


def test_a_folder_without_a_job_or_plan_is_refused(tmp_path, job):
    with pytest.raises(JobError, match="holds no job"):
        count(tmp_path / "elsewhere")
    next(job.plan.glob("*")).unlink()
    with pytest.raises(JobError, match="no plan yet"):
        count(job.output)
