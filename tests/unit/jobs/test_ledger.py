from __future__ import annotations

import os
from pathlib import Path

import pytest

from speechadapt.core.errors import JobError
from speechadapt.jobs.ledger import Journal, Ledger, Record


def record(identifier: str, **values: object) -> Record:
    known = {"key": "k", "status": "ok", "row": {"audio_filepath": identifier}}
    return Record(identifier, **(known | values))  # type: ignore[arg-type]


def write(path: Path, *records: Record) -> None:
    journal = Journal(path)
    journal.append(records)
    journal.close()


def test_records_come_back_as_they_went(tmp_path: Path):
    first = record("a", flags=("loop",), outputs=("a.txt",), speech_s=1.5, message="ü \udcff")
    write(tmp_path / "w.jsonl", first, record("b"))
    ledger = Ledger(tmp_path)
    assert list(ledger.records(["b", "a", "c"])) == [record("b"), first, None]
    assert (ledger.lines, ledger.torn) == (2, 0)


def test_lines_are_on_the_disk_before_append_returns(tmp_path: Path, monkeypatch):
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_size))
    write(tmp_path / "w.jsonl", record("a"), record("b"))
    assert flushed == [(tmp_path / "w.jsonl").stat().st_size]


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_a_torn_last_line_is_passed_over_and_closed_off(tmp_path: Path, lost: int):
    path = tmp_path / "w.jsonl"
    write(path, record("a"), record("b"))
    path.write_bytes(path.read_bytes()[:-lost])
    whole = {"a", "b"} if lost == 1 else {"a"}
    assert set(Ledger(tmp_path).entries) == whole
    write(path, record("c"))
    assert set(Ledger(tmp_path).entries) == whole | {"c"}


@pytest.mark.parametrize(("first", "second"), ["ab", "ba", "aa"])
def test_the_later_attempt_counts_whatever_journal_it_stands_in(
    tmp_path: Path, first: str, second: str
):
    write(tmp_path / f"{first}.jsonl", record("a", status="failed", reason="MODEL"))
    write(tmp_path / f"{second}.jsonl", record("a", attempts=2))
    ledger = Ledger(tmp_path)
    assert ledger.entries["a"].status == "ok"
    assert not ledger.repeated


def test_an_item_done_twice_is_noticed(tmp_path: Path):
    write(tmp_path / "a.jsonl", record("a"))
    write(tmp_path / "b.jsonl", record("a"))
    assert Ledger(tmp_path).repeated == {"a": 1}


def test_no_journal_is_an_empty_ledger(tmp_path: Path):
    ledger = Ledger(tmp_path / "missing")
    assert ledger.entries == {}
    assert list(ledger.records(["a"])) == [None]


def test_a_disk_that_is_full_is_said_so():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    journal = Journal(full)
    with pytest.raises(JobError, match="No space left"):
        journal.append([record("a")])
    journal.close()
