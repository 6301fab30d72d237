from __future__ import annotations

from made_job import write_job, write_tone

from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Journal, Record
from speechadapt.jobs.plan import Limits, PlanItem, make_plan, write_plan
from speechadapt.report.rows import make_rows, read_job


def test_the_worst_come_first(tmp_path):
    write_job(tmp_path / "out", 40)
    rows = make_rows(read_job(tmp_path / "out", {}), tmp_path / "out")
    assert [row["status"] for row in rows[:3]] == ["failed", "partial", "flagged"]
    rates = [row["wer"] for row in rows[2:] if "wer" in row]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]


def test_a_row_holds_the_scores_and_the_differences(tmp_path):
    items = write_job(tmp_path / "out", 40)
    rows = {row["name"]: row for row in make_rows(read_job(tmp_path / "out", {}), tmp_path)}
    row = rows["deep/clip0004.flac"]
    words = items[4].text.split()
    assert row["wer"] == 0.125
    assert row["edits"] == [1, 8]
    assert row["steps"][:2] == [["=", words[0]], ["S", words[1], "wrong"]]
    assert row["rtf"] == 0.02
    assert row["audio"] == "in/clip0004.flac"
    assert "message" not in row


def test_a_job_under_way_shows_what_is_done(tmp_path):
    write_job(tmp_path / "out", 40, done=12)
    job = read_job(tmp_path / "out", {})
    assert job.totals.pending == 28
    assert len(job.items) == 12


def test_audio_is_put_into_the_page_up_to_the_limit_worst_first(tmp_path):
    for item in write_job(tmp_path / "out", 8):
        write_tone(tmp_path / "in" / f"{item.id}.flac", 0.1)
    job = read_job(tmp_path / "out", {})
    one = len(make_rows(job, tmp_path, 10**9)[0]["audio"])
    rows = make_rows(job, tmp_path, one * 5 // 2)
    held = [row["audio"].startswith("data:") for row in rows]
    assert held == [True, True, False, False, False, False, False, False]


def test_a_restored_file_has_its_audio_pictures_and_scores(tmp_path):
    output = tmp_path / "out"
    folder, item = JobFolder(output), PlanItem("a", "a.wav", str(tmp_path / "a.wav"), "a", key="k")
    folder.claim({"job": "restore", "options": {"normaliser": "verbatim"}})
    write_plan(folder.plan, make_plan([item], Limits()), 0, [item])
    row = {
        "audio_filepath": "a.wav",
        "restored_filepath": "a.flac",
        "pictures": {"before": "pictures/a-before.png", "after": "pictures/a-after.png"},
        "scores": {"lsd": {"before": 5.25, "after": 3.5}},
    }
    journal = Journal(folder.journal / "w.jsonl")
    journal.append([Record("a", "k", "ok", audio_s=1.0, row=row)])
    journal.close()
    job = read_job(output, {})
    assert job.lines == (("lsd", "5.250 -> 3.500 (mean of 1 items)"),)
    (shown,) = make_rows(job, output)
    assert shown["audio"] == "../a.wav"
    assert shown["after"] == "a.flac"
    assert shown["pictures"] == row["pictures"]
    assert shown["scores"] == row["scores"]
