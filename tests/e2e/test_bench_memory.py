"""`tools/bench_memory.py` watches real processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import bench_memory
import pytest

from speechadapt.core.errors import JobError
from tests.e2e.jobs import failing_program
from tests.e2e.test_bench_kill import HOOKS


@pytest.mark.slow
@pytest.mark.parametrize("job", sorted(HOOKS))
def test_a_quick_run_watches_three_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    monkeypatch.setenv("SPEECHADAPT_LOADER", HOOKS[job])
    monkeypatch.setenv("FAKE_PAUSE_S", "0.2")
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    output = tmp_path / "memory.json"
    words = ["--job", job, "--quick", "--threads", "1", "--output", str(output)]
    assert bench_memory.main(words) == 0
    found = json.loads(output.read_text())
    prefix = {"transcribe": "", "restore": "restore_"}[job]
    wanted = [f"{prefix}memory_long", f"{prefix}memory_files"]
    assert [one["claim"] for one in found["figures"]] == wanted
    assert all(50 < peak < 5000 for peak in found["details"]["peak_mb"].values())


def test_the_memory_of_a_process_is_read_with_its_children() -> None:
    assert 1e6 < bench_memory.resident_bytes(os.getpid()) < 1e11
    assert bench_memory.resident_bytes(2**22 + 1) == 0


def test_growth_is_the_slope_of_the_second_half() -> None:
    samples = [(0.0, n, 100 if n < 50 else 1_000_000 + 2000 * n) for n in range(100)]
    assert bench_memory.growth_mb(bench_memory.Run(tuple(samples), 1.0)) == pytest.approx(2.0)
    closing = (*samples, *((0.0, 100, 9_000_000) for _ in range(20)))
    assert bench_memory.growth_mb(bench_memory.Run(closing, 1.0)) == pytest.approx(2.0)
    with pytest.raises(JobError, match="more files"):
        bench_memory.growth_mb(bench_memory.Run(((0.0, 5, 1),), 1.0))


def test_a_failed_job_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", failing_program(tmp_path, "it does not exist", 2))
    arguments = bench_memory.parse(["--threads", "1"])
    with pytest.raises(JobError, match="exit code 2: it does not exist"):
        bench_memory.run_job(tmp_path / "missing", tmp_path / "out", arguments)
