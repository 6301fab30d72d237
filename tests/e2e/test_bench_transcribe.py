"""`tools/bench_transcribe.py` times real processes over copied clips."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import bench_transcribe
import pytest

from speechadapt.core.errors import JobError
from tests.command import call
from tests.e2e.fake_recogniser import HOOK
from tests.e2e.jobs import failing_program


def in_this_process(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
    """Stand in for `subprocess.run`: starting an interpreter and torch takes most of the time."""
    words = command[command.index("transcribe") :]
    return subprocess.CompletedProcess(command, call(*words), "", "")


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_quick_run_times_processes_and_splits_the_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fresh: bool,
) -> None:
    if not fresh:
        monkeypatch.setattr(bench_transcribe, "subprocess", SimpleNamespace(run=in_this_process))
    monkeypatch.setenv("SPEECHADAPT_LOADER", HOOK)
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    output = tmp_path / "transcribe.json"
    words = ["--quick", "--threads", "1", "--output", str(output)]
    assert bench_transcribe.main(words) == 0
    found = json.loads(output.read_text())
    assert found["command"] == (
        "python tools/bench_transcribe.py --quick --threads 1 --output transcribe.json"
    )
    details, figures = found["details"], {one["claim"]: one for one in found["figures"]}
    assert details["clips"] == 8
    for kind in ("cold", "warm"):
        (run,) = details["runs"][kind]
        assert figures[f"transcribe_{kind}"]["value"] == pytest.approx(
            run["wall_s"] / details["audio_s"], rel=0.01
        )
        parts = [run[name] for name in ("decode_s", "model_s", "write_s", "rest_s")]
        assert sum(parts) == pytest.approx(run["wall_s"])
        # an interpreter does not start in less
        assert run["rest_s"] > (0.1 if fresh else 0.0)
        assert run["audio_s"] == pytest.approx(details["audio_s"], rel=0.01)
    printed = capsys.readouterr().out
    assert "shipped demo clips, repeated" in printed
    assert "page cache left alone" in printed


def test_a_failed_job_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", failing_program(tmp_path, "no such model", 2))
    arguments = bench_transcribe.parse(["--model", "no-such-model", "--threads", "1"])
    with pytest.raises(JobError, match="exit code 2: no such model"):
        bench_transcribe.run_job(tmp_path / "clips", tmp_path / "out", arguments)


def test_without_permission_files_are_given_up_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_transcribe, "DROP_CACHES", tmp_path / "not" / "there")
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "0.txt")
    said = bench_transcribe.drop_page_cache([tmp_path])
    assert said.startswith("3 files")
    assert "not permitted" in said


def test_with_permission_the_whole_cache_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_transcribe, "DROP_CACHES", tmp_path / "drop_caches")
    assert "whole system" in bench_transcribe.drop_page_cache([tmp_path])
    assert (tmp_path / "drop_caches").read_text() == "3\n"
