"""Measure the resident memory of a job (transcribe or restore): a long recording, and many files.

The recordings are real clips laid end to end with pauses. Every run is a process of its own whose
memory (with that of its children) is read from /proc several times a second.

    python tools/bench_memory.py --data PACK --output docs/results/memory.json
    python tools/bench_memory.py --job restore --files 200 --data PACK
    python tools/bench_memory.py --quick      # a smoke run: seconds of audio, few files

Long recordings: the highest memory for 3 hours minus the highest for 3 minutes. Many files: the
slope of the memory over the second half of 2,000 files, when everything is loaded and until the
last one is done: what the closing takes is no growth by files. Exit code 1 where the bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
from bench_clips import SAMPLE_RATE, Clips, find_pack, short_clips
from bench_facts import (
    describe_command,
    environment,
    figure,
    public_place,
    result,
    run_tool,
)

from speechadapt.core.errors import JobError

JOBS = ("transcribe", "restore")
PAUSE_S = 1.0
POLL_S = 0.1
MB = 1e6


@dataclass(frozen=True)
class Run:
    """One job and its memory.

    Args:
        samples: Seconds since the start, items done, resident bytes.
        wall_s: Seconds from start to exit.
    """

    samples: tuple[tuple[float, int, int], ...]
    wall_s: float

    @property
    def peak_mb(self) -> float:
        """Highest resident memory in megabytes."""
        return max(memory for _, _, memory in self.samples) / MB


def run_job(source: Path, output: Path, arguments: argparse.Namespace) -> Run:
    """Run one job in a fresh process and watch it.

    Raises:
        JobError: The job did not end with exit code 0.
    """
    command = [sys.executable, "-m", "speechadapt.cli.main", arguments.job, str(source)]
    command += ["-o", str(output), "--device", "cpu"]
    if arguments.job == "transcribe":  # a restoration runs one thread
        command += ["--threads", str(arguments.threads)]
    command += ["--model", arguments.model] if arguments.model else []
    log = output.with_suffix(".log")
    started = time.perf_counter()
    samples: list[tuple[float, int, int]] = []
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            memory = resident_bytes(process.pid)
            if memory:
                samples.append((time.perf_counter() - started, lines(output), memory))
            time.sleep(POLL_S)
    if process.returncode != 0:
        text = log.read_text(errors="replace")[-2000:]
        raise JobError(f"the job ended with exit code {process.returncode}: {text}")
    return Run(tuple(samples), time.perf_counter() - started)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children, 0 where it is gone."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return total
    return total + sum(resident_bytes(int(child)) for child in children)


def lines(output: Path) -> int:
    """Count the lines of a job's journals."""
    journals = (output / ".speechadapt" / "journal").glob("*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in journals)


def write_recording(clips: Clips, path: Path, seconds: float) -> None:
    """Lay clips end to end with pauses until there is enough."""
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), dtype=np.float32)
    left = round(seconds * SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, format="FLAC") as file:
        while left > 0:
            for waveform in clips.waveforms:
                for part in (waveform, pause):
                    file.write(part[:left])
                    left -= len(part[:left])


def write_files(clips: Clips, folder: Path, count: int) -> None:
    """Write as many files, clips repeated."""
    folder.mkdir()
    for number in range(count):
        waveform = clips.waveforms[number % len(clips.waveforms)]
        soundfile.write(folder / f"{number:05d}.flac", waveform, SAMPLE_RATE)


def growth_mb(run: Run) -> float:
    """Return the slope of the memory over the second half of the items, per 1,000 items.

    Raises:
        JobError: The job was over too soon to tell.
    """
    last = max(done for _, done, _ in run.samples)
    later = [(done, memory) for _, done, memory in run.samples if last / 2 <= done < last]
    counts = [done for done, _ in later]
    if len(set(counts)) < 2:
        raise JobError("too few samples of the memory; measure more files.")
    slope, _ = statistics.linear_regression(counts, [memory for _, memory in later])
    return slope * 1000 / MB


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Run the three jobs."""
    pack = find_pack(arguments.data)
    clips = short_clips(pack)
    runs: dict[str, Run] = {}
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name, seconds in (("short", arguments.short_s), ("long", arguments.long_s)):
            write_recording(clips, root / f"{name}.flac", seconds)
            runs[name] = run_job(root / f"{name}.flac", root / f"{name}-out", arguments)
            print(f"{seconds:g} s: {runs[name].peak_mb:.0f} MB at most", file=sys.stderr)
        write_files(clips, root / "files", arguments.files)
        runs["files"] = run_job(root / "files", root / "files-out", arguments)
    prefix = "" if arguments.job == "transcribe" else f"{arguments.job}_"
    over = runs["long"].peak_mb - runs["short"].peak_mb
    text = f"run of {arguments.long_s:g} s and of {arguments.short_s:g} s, highest of each"
    figures = [
        figure(f"{prefix}memory_long", [over], text),
        figure(
            f"{prefix}memory_files", [growth_mb(runs["files"])], f"run of {arguments.files} files"
        ),
    ]
    details = {
        "job": arguments.job,
        "model": public_place(arguments.model) if arguments.model else "the bundled default",
        "source": clips.source,
        "files": arguments.files,
        "seconds": {"short": arguments.short_s, "long": arguments.long_s},
        "peak_mb": {name: round(run.peak_mb, 1) for name, run in runs.items()},
        "wall_s": {name: round(run.wall_s, 2) for name, run in runs.items()},
        "curves": {name: thin(run) for name, run in runs.items()},
    }
    threads = arguments.threads if arguments.job == "transcribe" else 1
    facts = environment("cpu", "float32", threads, "the job's default")
    command = describe_command("bench_memory.py", words, pack is not None)
    return result(command, facts, figures, details, arguments.quick)


def thin(run: Run, points: int = 20) -> list[tuple[float, int, float]]:
    """Return a few samples of a run: seconds, items done, megabytes."""
    step = max(1, len(run.samples) // points)
    return [(round(at, 1), done, round(size / MB, 1)) for at, done, size in run.samples[::step]]


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", choices=JOBS, default="transcribe")
    parser.add_argument("--model", help="bundled name or folder (default: the bundled default)")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--long-s", type=float, default=3 * 3600.0, help="the long recording")
    parser.add_argument("--short-s", type=float, default=180.0, help="the short one, in seconds")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run on seconds of audio")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.long_s, arguments.short_s, arguments.files = 60.0, 20.0, 40
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_memory", given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())
