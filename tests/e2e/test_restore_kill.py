"""kill -9 at random moments of a restoration, then resume: nothing shows in the outputs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechadapt.models.restorer_tiny import write_tiny_restorer
from tests.e2e.fake_recogniser import write_tones
from tests.e2e.fake_restorer import HOOK
from tests.e2e.test_kill_resume import lines, outputs, tear_last_line, wait_for

CLIPS = 12


def start(source: Path, output: Path, *more: str, **extra: str) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own."""
    command = [sys.executable, "-m", "speechadapt.cli.main", "restore", str(source)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | extra
    quiet = subprocess.DEVNULL
    command += ["-o", str(output), *more]
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)


def kill_and_resume(
    source: Path, output: Path, moments: list[int], *more: str, **extra: str
) -> None:
    """Kill a run each time so many items are done, at a random instant after that, and resume."""
    chance = random.Random(sum(moments))
    for moment in moments:
        process = start(source, output, *more, **extra)
        wait_for(output, moment, process)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(lines(output)) < CLIPS, "the kill came too late to show anything"
    tear_last_line(output)
    extra.pop("FAKE_PAUSE_S", None)
    assert start(source, output, *more, **extra).wait() == 0


def check(output: Path, expected: dict[str, bytes]) -> None:
    assert outputs(output) == expected
    assert len(expected) == CLIPS + 1
    done = [(line["id"], line["attempts"]) for line in lines(output)]
    assert len(done) == len(set(done)) == CLIPS


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, CLIPS)
    return folder


@pytest.mark.slow
def test_two_kills_leave_no_trace(source, tmp_path):
    hook = {"SPEECHADAPT_LOADER": HOOK}
    assert start(source, tmp_path / "whole", "-f", "opus", **hook).wait() == 0
    kill_and_resume(source, tmp_path / "out", [1, 6], "-f", "opus", **hook, FAKE_PAUSE_S="0.05")
    check(tmp_path / "out", outputs(tmp_path / "whole"))


@pytest.mark.slow
def test_kills_leave_no_trace_in_what_a_network_restores(source, tmp_path):
    tiny = write_tiny_restorer(tmp_path / "tiny")
    more = ("--model", str(tiny))
    assert start(source, tmp_path / "whole", *more).wait() == 0
    kill_and_resume(source, tmp_path / "out", [0, 2, 5, 8], *more)
    check(tmp_path / "out", outputs(tmp_path / "whole"))
    assert start(source, tmp_path / "two", *more, "--workers", "2").wait() == 0
    assert outputs(tmp_path / "two") == outputs(tmp_path / "whole")
