"""The same job on Ray and in one process: not a byte of the outputs differs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.fake_recogniser import HOOK, write_tones

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")

CLIPS = 24


Launch = Callable[..., subprocess.Popen[bytes]]


def start(source: Path, output: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "speechadapt.cli.main", "transcribe", str(source)]
    command += ["-o", str(output), "--no-vad", "--batch-size", "2", *more]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"SPEECHADAPT_LOADER": HOOK, "PYTHONPATH": root} | environment
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)


@pytest.fixture
def on_ray() -> Iterator[Launch]:
    """Start the command line with a Ray of its own; whatever still runs at the end is killed."""
    begun: list[subprocess.Popen[bytes]] = []

    def launch(
        source: Path, output: Path, *more: str, **environment: str
    ) -> subprocess.Popen[bytes]:
        words = ("--engine", "ray", "--address", "local", "--workers", "2")
        begun.append(start(source, output, *words, *more, **environment))
        return begun[-1]

    yield launch
    for process in begun:
        process.kill()
        process.wait()


def outputs(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".speechadapt" not in path.parts
    }


def journal(output: Path) -> list[dict]:
    found = []
    for path in sorted((output / ".speechadapt" / "journal").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, CLIPS)
    return folder


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("whole")
    assert start(source, output).wait() == 0
    return outputs(output)


def test_ray_writes_what_one_process_writes(source, expected, on_ray, tmp_path):
    # A batch takes half a second, so that a worker that is slow to start still finds work.
    assert on_ray(source, tmp_path / "out", FAKE_PAUSE_S="0.5").wait() == 0
    assert outputs(tmp_path / "out") == expected
    workers = (tmp_path / "out/.speechadapt/journal").glob("*-worker-*.jsonl")
    assert sum(path.stat().st_size > 0 for path in workers) == 2
    summary = json.loads((tmp_path / "out/.speechadapt/summary.json").read_text())
    assert summary["complete"]


@pytest.mark.slow
def test_a_clip_that_kills_workers_is_left_out_with_its_reason(source, expected, on_ray, tmp_path):
    output = tmp_path / "out"
    assert on_ray(source, output, FAKE_DIE_AT_HZ="250").wait() == 3
    failed = [line for line in journal(output) if line["status"] == "failed"]
    assert [(line["id"], line["reason"]) for line in failed] == [("clip05.wav", "MODEL")]
    assert "its worker died, 3 times" in failed[0]["message"]
    mine = {name: data for name, data in expected.items() if "clip05" not in name}
    del mine["transcripts.jsonl"]
    assert {name: outputs(output).get(name) for name in mine} == mine


@pytest.mark.slow
def test_killed_drivers_leave_no_trace(source, expected, on_ray, tmp_path):
    output, chance = tmp_path / "out", random.Random(0)
    for moment in (2, 9):
        process = on_ray(source, output, FAKE_PAUSE_S="0.1")
        deadline = time.monotonic() + 240
        while len(journal(output)) < moment and process.poll() is None:
            assert time.monotonic() < deadline, "the job does not get on"
            time.sleep(0.01)
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(journal(output)) < CLIPS
    assert on_ray(source, output).wait() == 0
    assert outputs(output) == expected
    done = [(line["id"], line["attempts"]) for line in journal(output)]
    assert len(done) == len(set(done)) == CLIPS


@pytest.mark.slow
def test_a_signal_ends_the_run_after_its_batch_and_the_next_goes_on(
    source, expected, on_ray, tmp_path
):
    output = tmp_path / "out"
    process = on_ray(source, output, FAKE_PAUSE_S="0.2")
    deadline = time.monotonic() + 240
    while not journal(output) and process.poll() is None:
        assert time.monotonic() < deadline, "the job does not get on"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert 0 < len(journal(output)) < CLIPS
    assert on_ray(source, output).wait() == 0
    assert outputs(output) == expected
