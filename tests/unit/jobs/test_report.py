from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Journal, Ledger, Record
from speechadapt.jobs.plan import Limits, Plan, PlanItem, make_plan
from speechadapt.jobs.report import Totals, current_records, finish
from speechadapt.jobs.rows import make_row


def item(name: str, text: str | None = None, speaker: str | None = None) -> PlanItem:
    return PlanItem(
        name, f"{name}.wav", name, name, key="k", header_s=1.0, text=text, speaker=speaker
    )


ITEMS = [
    item("good", "one two", "s1"),
    item("wrong", "three four", "s2"),
    item("lost", "five", "s2"),
    item("noise", "", "s1"),
    item("unknown"),
]


def records() -> list[Record]:
    said = {"good": "one two", "wrong": "three five six", "noise": "ghost words", "unknown": "x"}
    made = []
    for one in ITEMS:
        text = said.get(one.id)
        status = "failed" if text is None else "ok"
        reason = "MODEL" if text is None else None
        row = make_row(one, status, pred_text=text, reason=reason, duration=1.0)
        seconds = {"audio_s": 1.0, "speech_s": 0.5, "covered_s": 0.4}
        made.append(Record(one.id, one.key, status, reason, row=row, **seconds))
    return made


@pytest.fixture
def job(tmp_path: Path) -> tuple[JobFolder, Plan]:
    return JobFolder(tmp_path), make_plan(ITEMS, Limits())


def write(folder: JobFolder, rows: list[Record]) -> None:
    journal = Journal(folder.journal / "w.jsonl")
    journal.append(rows)
    journal.close()


def test_rows_stand_in_plan_order_whatever_the_journals_order(job):
    folder, plan = job
    write(folder, list(reversed(records())))
    report = finish(folder, plan, "verbatim")
    rows = [json.loads(line) for line in folder.transcripts.read_text().splitlines()]
    assert [row["audio_filepath"] for row in rows] == [f"{one.id}.wav" for one in ITEMS]
    assert report.complete
    assert report.totals.failed == 1


def test_transcripts_are_not_written_before_everything_is_done(job):
    folder, plan = job
    write(folder, records()[:3])
    report = finish(folder, plan, "verbatim")
    assert not folder.transcripts.exists()
    assert report.totals.pending == 2
    assert json.loads(folder.summary.read_text())["pending"] == 2


def test_every_reference_counts_and_non_speech_stands_apart(job):
    folder, plan = job
    write(folder, records())
    finish(folder, plan, "verbatim")
    score = json.loads(folder.summary.read_text())["score"]
    assert score["wer"] | {"low": 0, "high": 0} == {
        "rate": round(3 / 5, 5),
        "low": 0,
        "high": 0,
        "interval": score["wer"]["interval"],
        "hits": 3,
        "substitutions": 1,
        "deletions": 1,
        "insertions": 1,
    }
    assert "2 speakers" in score["wer"]["interval"]
    assert score["references"] == 4
    assert score["missing_hypotheses"] == 1
    assert score["non_speech"] == {"items": 1, "inserted_words": 2}
    assert score["scorer"].startswith("jiwer ")
    assert score["normalisers"] == ["verbatim 1"]


def test_failed_items_are_listed_with_reasons(job):
    folder, plan = job
    write(folder, records())
    finish(folder, plan, "verbatim")
    rows = [json.loads(line) for line in folder.failed.read_text().splitlines()]
    assert rows == [
        {
            "id": "lost",
            "audio_filepath": "lost.wav",
            "status": "failed",
            "reason": "MODEL",
            "message": "",
        }
    ]


def test_a_record_of_an_older_content_does_not_count(job):
    folder, plan = job
    write(folder, [replace(records()[0], key="old")])
    found = list(current_records(plan, Ledger(folder.journal)))
    assert found == [None] * 5


def test_coverage_is_a_share_of_speech():
    totals = Totals()
    for record in records():
        totals.add(record)
    assert totals.coverage == pytest.approx(0.8)
    assert Totals().coverage is None


def test_without_references_there_is_no_score(job):
    folder, _ = job
    plan = make_plan([ITEMS[4]], Limits())
    write(folder, records()[4:])
    assert finish(folder, plan, "verbatim").score is None
