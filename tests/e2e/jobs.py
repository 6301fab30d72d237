"""Jobs in processes of their own that are stopped and go on, and what a job's folder holds."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

CLIPS = 24  # in the folder that jobs are killed over
PATIENCE_S = 240.0

Cli = Callable[..., int]
# Importing torch takes seconds, so it is done once, by the process that all others are forks of.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "speechadapt.jobs.execute", "speechadapt.jobs.worker"])


def start(job: str, source: Path, output: Path, *more: str, **environment: str) -> BaseProcess:
    """Start a job of the command line in a process of its own."""
    words = [job, str(source), "-o", str(output), *more]
    process = _CONTEXT.Process(target=_run, args=(words, environment))
    process.start()
    return process


def end(process: BaseProcess) -> int:
    """Wait until a job ends; return its exit code, or less than 0 where a signal ended it."""
    process.join(PATIENCE_S)
    assert process.exitcode is not None, "the job does not end"
    return process.exitcode


def stop(process: BaseProcess, number: signal.Signals) -> int:
    """Send a job a signal and wait until it ends; return its exit code (see `end`)."""
    assert process.pid is not None
    os.kill(process.pid, number)
    return end(process)


def _run(words: Sequence[str], environment: Mapping[str, str]) -> None:
    from speechadapt.cli.main import main

    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    os.environ.update({"PYTHONPATH": str(Path(__file__).parents[2]), **environment})
    sys.exit(main(words))


def wait_for(output: Path, count: int, process: BaseProcess) -> None:
    """Wait until that many items are journalled, or the process ended."""
    deadline = time.monotonic() + PATIENCE_S
    while len(journal(output)) < count and process.exitcode is None:
        assert time.monotonic() < deadline, "the job does not get on"
        time.sleep(0.002)


def kill_and_resume(
    begin: Callable[..., BaseProcess], output: Path, moments: Sequence[int], **slowly: str
) -> None:
    """Kill a job each time so many items are done, at a random instant after that, and resume.

    Args:
        begin: Starts it, with more of the environment where given.
        output: Its folder.
        moments: Items done at each kill.
        slowly: The environment in which it is slow enough to be killed under way.
    """
    chance = random.Random(sum(moments))
    for moment in moments:
        process = begin(**slowly)
        wait_for(output, moment, process)
        time.sleep(chance.random() * 0.05)
        stop(process, signal.SIGKILL)
        assert len(journal(output)) < CLIPS, "the kill came too late to show anything"
    tear_last_line(output)
    assert end(begin()) == 0


def tear_last_line(output: Path) -> None:
    """Leave half of a journal's last line, as a crash of the machine may."""
    path = max((output / ".speechadapt/journal").glob("*-worker-*.jsonl"), key=os.path.getsize)
    path.write_bytes(path.read_bytes()[:-40])


def failing_program(folder: Path, message: str, code: int) -> str:
    """Write a program that does nothing but complain and fail; return its path."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\necho '{message}' >&2\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def parse(path: Path) -> list[dict]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def journal(output: Path) -> list[dict]:
    """Return the whole lines of all journals; a job may be writing another."""
    found = []
    for path in sorted((output / ".speechadapt" / "journal").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def tree(output: Path) -> dict[str, bytes]:
    """Return every file that is an output, not state."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".speechadapt" not in path.parts
    }


def check_whole(output: Path, expected: dict[str, bytes], attempts: int | None = 1) -> None:
    """Compare a job's outputs with those of a run without trouble; each item is done once."""
    assert tree(output) == expected
    done = [(line["id"], line["attempts"]) for line in journal(output)]
    assert len(done) == len(set(done)) == CLIPS
    if attempts is not None:
        assert {count for _, count in done} == {attempts}
