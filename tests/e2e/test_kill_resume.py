"""kill -9 at random moments of a real command, then resume: nothing shows in the outputs."""

from __future__ import annotations

import json
import signal
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.e2e.fake_recogniser import HOOK
from tests.e2e.jobs import CLIPS, check_whole, end, journal, kill_and_resume, start, stop, wait_for

SHOWN = {"FAKE_BATCH_SHOWS": "1"}  # a batch that differs between runs shows in the outputs


def begin(source: Path, output: Path, *more: str, **slowly: str) -> BaseProcess:
    words = ("--no-vad", "--batch-size", "2", *more)
    return start("transcribe", source, output, *words, SPEECHADAPT_LOADER=HOOK, **SHOWN, **slowly)


@pytest.fixture
def expected(whole) -> dict[str, bytes]:
    """Return what an uninterrupted run writes."""
    return whole(**SHOWN)


def kill(source: Path, output: Path, moments: list[int], *more: str) -> None:
    kill_and_resume(partial(begin, source, output, *more), output, moments, FAKE_PAUSE_S="0.03")


def test_three_kills_leave_no_trace(source, expected, tmp_path):
    kill(source, tmp_path / "out", [1, 7, 15])
    check_whole(tmp_path / "out", expected)


@pytest.mark.slow
def test_ten_kills_leave_no_trace(source, expected, tmp_path):
    kill(source, tmp_path / "out", [0, 1, 3, 5, 8, 10, 12, 14, 16, 18])
    check_whole(tmp_path / "out", expected)


@pytest.mark.slow
def test_a_killed_driver_takes_its_workers_along(source, expected, tmp_path):
    kill(source, tmp_path / "out", [2, 9], "--workers", "2")
    check_whole(tmp_path / "out", expected)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_ends_the_run_after_its_batch_and_the_next_goes_on(
    source, expected, tmp_path, number, code
):
    output = tmp_path / "out"
    process = begin(source, output, FAKE_PAUSE_S="0.1")
    wait_for(output, 1, process)
    assert stop(process, number) == code
    assert 0 < len(journal(output)) < CLIPS
    summary = json.loads((output / ".speechadapt/summary.json").read_text())
    assert summary["interrupted"]
    assert summary["pending"] == CLIPS - len(journal(output))
    assert end(begin(source, output)) == 0
    check_whole(output, expected)
