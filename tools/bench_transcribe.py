"""Time `speechadapt transcribe` on 200 real clips, from process start to exit, cold and warm.

The clips (50 each of orders, wake words, digits and read sentences) are copied as they are from the
pack to a temporary folder. Every run is a process of its own. Before a cold run the operating
system's cache of files is dropped as far as permitted, so that the program, the model and the clips
come from the disk; the warm run follows at once. The split by stage is read from the job's own
summary.json; what no stage accounts for is starting, loading and leaving.

    python tools/bench_transcribe.py --data PACK --output docs/results/transcribe.json
    python tools/bench_transcribe.py --quick      # a smoke run: few clips, caches left alone

Without the pack the shipped clips are repeated; the report says which. Exit code 1 where the bar is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_clips import ClipFolder, find_pack, write_folder
from bench_facts import (
    ROOT,
    describe_command,
    environment,
    figure,
    public_place,
    result,
    run_tool,
)

from speechadapt.core.errors import JobError

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
PER_GROUP = 50  # of less it is a smoke run
STAGES = ("decode_s", "model_s", "write_s", "rest_s", "wall_s")


def run_job(clips: Path, output: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Run one job in a fresh process.

    Returns:
        Wall-clock seconds from start to exit, those of every stage, and the model's own RTF.

    Raises:
        JobError: The job did not end with exit code 0.
    """
    command = [sys.executable, "-m", "speechadapt.cli.main"]
    script = Path(sys.executable).with_name("speechadapt")
    if script.is_file():
        command = [str(script)]
    command += ["transcribe", str(clips), "-o", str(output), "--device", "cpu"]
    command += ["--threads", str(arguments.threads)]
    command += ["--model", arguments.model] if arguments.model else []
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall_s = time.perf_counter() - started
    if done.returncode != 0:
        raise JobError(f"the job ended with exit code {done.returncode}: {done.stderr[-2000:]}")
    speed = json.loads((output / ".speechadapt" / "summary.json").read_text())["speed"]
    seconds = {name: float(speed[name]) for name in ("decode_s", "model_s", "write_s")}
    return seconds | {
        "rest_s": wall_s - sum(seconds.values()),
        "wall_s": wall_s,
        "audio_s": float(speed["audio_s"]),
        "model_rtf": float(speed["model"]["rtf"]),
    }


def drop_page_cache(folders: Sequence[Path]) -> str:
    """Drop cached files: the system's where permitted, else those of the given folders.

    Returns:
        What was dropped, in words.
    """
    os.sync()
    try:
        DROP_CACHES.write_text("3\n", encoding="ascii")
    except OSError:
        pass
    else:
        return "page cache of the whole system dropped before every run"
    if not hasattr(os, "posix_fadvise"):
        return "page cache not dropped: this system does not permit it"
    files = 0
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                files += _give_up(path)
    return (
        f"{files} files (environment, package, clips) given up by posix_fadvise before every run; "
        "dropping the whole page cache is not permitted here"
    )


def _give_up(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return 0
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return 1


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Time cold and warm runs by turns."""
    pack = find_pack(arguments.data)
    runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    dropped = "page cache left alone (smoke run)"
    with TemporaryDirectory() as temporary:
        clips = Path(temporary) / "clips"
        folder = write_folder(pack, clips, arguments.per_group)
        for number in range(arguments.runs):
            if not arguments.quick:
                dropped = drop_page_cache([Path(sys.prefix), ROOT / "speechadapt", clips])
            for kind in ("cold", "warm"):
                output = Path(temporary) / f"{kind}-{number}"
                runs[kind].append(run_job(clips, output, arguments))
                print(f"{kind} {number + 1}: {runs[kind][-1]['wall_s']:.2f} s", file=sys.stderr)
    return report(arguments, words, folder, runs, dropped)


def report(
    arguments: argparse.Namespace,
    words: Sequence[str],
    folder: ClipFolder,
    runs: dict[str, list[dict[str, float]]],
    dropped: str,
) -> dict[str, Any]:
    """Print what was measured and return it as JSON types."""

    def rtf(kind: str) -> list[float]:
        return [one["wall_s"] / folder.audio_s for one in runs[kind]]

    facts = environment("cpu", "float32", arguments.threads, "the job's default")
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{folder.count} clips, {folder.audio_s:.1f} s of audio ({folder.source})")
    print(f"cold: {dropped}")
    print(f"{'median seconds':<16}" + "".join(f"{stage[:-2]:>9}" for stage in STAGES))
    medians = {kind: _medians(rows) for kind, rows in runs.items()}
    for kind, values in medians.items():
        print(f"{kind:<16}" + "".join(f"{values[stage]:>9.2f}" for stage in STAGES))
    figures = [
        figure("transcribe_cold", rtf("cold"), f"fresh processes; {dropped}"),
        figure("transcribe_warm", rtf("warm"), "fresh processes, each right after a cold one"),
        figure("transcribe_model", [one["model_rtf"] for one in runs["warm"]], "warm runs"),
    ]
    details = {
        "model": public_place(arguments.model) if arguments.model else "the bundled default",
        "clips": folder.count,
        "audio_s": round(folder.audio_s, 2),
        "source": folder.source,
        "cold": dropped,
        "median_s": medians,
        "runs": runs,
    }
    command = describe_command("bench_transcribe.py", words, folder.from_pack)
    smoke = arguments.quick or arguments.per_group < PER_GROUP
    return result(command, facts, figures, details, smoke)


def _medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {stage: round(statistics.median(row[stage] for row in rows), 3) for stage in STAGES}


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="bundled name or folder (default: the bundled default)")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument(
        "--per-group", type=int, default=PER_GROUP, help="clips of each of four groups"
    )
    parser.add_argument("--runs", type=int, default=3, help="cold runs, and warm ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run on a few clips")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.per_group, arguments.runs = 2, 1
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_transcribe", given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())
