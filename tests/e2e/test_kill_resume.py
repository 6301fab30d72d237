"""kill -9 at random moments of a real command, then resume: nothing shows in the outputs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.fake_recogniser import HOOK, write_tones

CLIPS = 24


def start(source: Path, output: Path, *more: str, pause_s: float = 0.0) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own."""
    command = [sys.executable, "-m", "speechadapt.cli.main", "transcribe", str(source)]
    command += ["-o", str(output), "--no-vad", "--batch-size", "2", *more]
    environment = os.environ | {
        "SPEECHADAPT_LOADER": HOOK,
        "FAKE_PAUSE_S": str(pause_s),
        "FAKE_BATCH_SHOWS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)


def lines(output: Path) -> list[dict]:
    """Return the whole lines of all journals."""
    found = []
    for path in sorted((output / ".speechadapt" / "journal").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def outputs(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".speechadapt" not in path.parts
    }


def wait_for(output: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until that many lines are journalled."""
    deadline = time.monotonic() + 240
    while len(lines(output)) < count and process.poll() is None:
        assert time.monotonic() < deadline, "the job does not get on"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, CLIPS)
    return folder


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return what an uninterrupted run writes."""
    output = tmp_path_factory.mktemp("whole")
    assert start(source, output).wait() == 0
    written = outputs(output)
    assert len(written) == 2 * CLIPS + 1
    return written


def tear_last_line(output: Path) -> None:
    """Leave half of a journal's last line, as a crash of the machine may."""
    path = max((output / ".speechadapt/journal").glob("*-worker-*.jsonl"), key=os.path.getsize)
    path.write_bytes(path.read_bytes()[:-40])


def kill_and_resume(source: Path, output: Path, moments: list[int], *more: str) -> None:
    """Kill a run each time so many items are done, at a random instant after that, and resume."""
    chance = random.Random(sum(moments))
    for moment in moments:
        process = start(source, output, *more, pause_s=0.03)
        wait_for(output, moment, process)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(lines(output)) < CLIPS, "the kill came too late to show anything"
    tear_last_line(output)
    assert start(source, output, *more).wait() == 0


def check(output: Path, expected: dict[str, bytes]) -> None:
    assert outputs(output) == expected
    done = [(line["id"], line["attempts"]) for line in lines(output)]
    assert len(done) == len(set(done)) == CLIPS
    assert {attempts for _, attempts in done} == {1}


def test_three_kills_leave_no_trace(source, expected, tmp_path):
    kill_and_resume(source, tmp_path / "out", [1, 7, 15])
    check(tmp_path / "out", expected)


@pytest.mark.slow
def test_ten_kills_leave_no_trace(source, expected, tmp_path):
    kill_and_resume(source, tmp_path / "out", [0, 1, 3, 5, 8, 10, 12, 14, 16, 18])
    check(tmp_path / "out", expected)


@pytest.mark.slow
def test_a_killed_driver_takes_its_workers_along(source, expected, tmp_path):
    kill_and_resume(source, tmp_path / "out", [2, 9], "--workers", "2")
    check(tmp_path / "out", expected)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_ends_the_run_after_its_batch_and_the_next_goes_on(
    source, expected, tmp_path, number, code
):
    output = tmp_path / "out"
    process = start(source, output, pause_s=0.1)
    wait_for(output, 1, process)
    process.send_signal(number)
    assert process.wait() == code
    assert 0 < len(lines(output)) < CLIPS
    summary = json.loads((output / ".speechadapt/summary.json").read_text())
    assert summary["interrupted"]
    assert summary["pending"] == CLIPS - len(lines(output))
    assert start(source, output).wait() == 0
    check(output, expected)
