"""`tools/bench_kill.py` kills real processes and compares what they leave."""

from __future__ import annotations

import json
from pathlib import Path

import bench_kill
import pytest

from tests.e2e import fake_recogniser, fake_restorer

HOOKS = {"transcribe": fake_recogniser.HOOK, "restore": fake_restorer.HOOK}


@pytest.mark.slow
@pytest.mark.parametrize("job", sorted(HOOKS))
def test_a_quick_run_kills_and_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    monkeypatch.setenv("SPEECHADAPT_LOADER", HOOKS[job])
    monkeypatch.setenv("FAKE_PAUSE_S", "0.2")
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    output = tmp_path / "kill.json"
    words = ["--job", job, "--quick", "--threads", "1", "--output", str(output)]
    assert bench_kill.main(words) == 0
    details = json.loads(output.read_text())["details"]
    assert len(details["items_done_at_each_kill"]) == 3
    assert details["items"] == 20
    assert details["lost_items"] == details["items_done_twice"] == details["different_files"] == 0


def test_what_was_lost_doubled_or_different_is_counted(tmp_path: Path) -> None:
    journal = tmp_path / ".speechadapt" / "journal" / "w.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"id": "a"}\n{"id": "b"}\n{"id": "a"}\n{"id": "c"')
    (tmp_path / "a.txt").write_text("changed")
    (tmp_path / "more.txt").write_text("")
    found = bench_kill.compare({"a.txt": b"", "b.txt": b""}, tmp_path, {"a", "b", "c"})
    assert found == {"different_files": 3, "lost_items": 1, "items_done_twice": 1}
