from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Journal, Record
from speechadapt.jobs.plan import Limits, PlanItem, make_plan, write_plan
from speechadapt.jobs.rows import make_row
from tests import command

call = partial(command.call, "job")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of two items, one of which failed."""
    folder = JobFolder(tmp_path / "out")
    items = [PlanItem(name, name, name, name, key="k", header_s=1.0) for name in "ab"]
    folder.claim({"options": {"normaliser": "verbatim"}})
    write_plan(folder.plan, make_plan(items, Limits()), 0, items)
    journal = Journal(folder.journal / "w.jsonl")
    good, bad = make_row(items[0], "ok", pred_text="x"), make_row(items[1], "failed", reason="OOM")
    journal.append([Record("a", "k", "ok", row=good), Record("b", "k", "failed", "OOM", row=bad)])
    journal.close()
    return folder.output


def test_status_counts_and_its_exit_code_tells_of_failures(job, capsys):
    assert call("status", job) == 3
    printed = capsys.readouterr().out
    assert "2 of 2 items done" in printed
    assert "1 OOM" in printed
    assert call("status", job, "--json") == 3
    assert json.loads(capsys.readouterr().out)["reasons"] == {"OOM": 1}


def test_merge_writes_the_rows_and_verify_is_content(job, capsys):
    assert call("verify", job) == 3
    assert call("merge", job) == 3
    assert len((job / "transcripts.jsonl").read_text().splitlines()) == 2
    assert call("verify", job) == 0
    assert "as journalled" in capsys.readouterr().out


def test_retry_uses_the_options_of_the_last_run(job, monkeypatch):
    seen: list[tuple[Path, dict]] = []
    monkeypatch.setattr(
        "speechadapt.jobs.execute.retry_job",
        lambda folder, **changes: seen.append((folder, changes)) or 0,
    )
    assert call("retry", job, "--workers", "2") == 0
    assert seen == [(str(job), {"device": "auto", "workers": 2, "offline": False})]


def test_a_folder_without_a_job_is_an_error(tmp_path, capsys):
    assert call("status", tmp_path) == 1
    assert "holds no job" in capsys.readouterr().err
