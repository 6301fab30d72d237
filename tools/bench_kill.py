"""Kill a job (transcribe or restore) with signal 9 at random moments, resume it, and compare.

An uninterrupted run gives the time and the expected outputs. The job under test is then started and
killed as often as asked, each time at a random moment of what the work still takes, and at last
left alone. Outputs must be byte-identical, with no item missing or done twice in the journals.

    python tools/bench_kill.py --data PACK --output docs/results/kill.json
    python tools/bench_kill.py --job restore --model FOLDER --data PACK
    python tools/bench_kill.py --quick      # a smoke run: few clips, three kills

Exit code 1 where anything was lost, doubled or different.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_clips import find_pack, write_folder
from bench_facts import (
    describe_command,
    environment,
    figure,
    public_place,
    result,
    run_tool,
)

from speechadapt.core.errors import JobError

STATE = ".speechadapt"
JOBS = ("transcribe", "restore")


def start(clips: Path, output: Path, arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start a job in a process of its own."""
    command = [sys.executable, "-m", "speechadapt.cli.main", arguments.job, str(clips)]
    command += ["-o", str(output), "--device", "cpu", "--workers", str(arguments.workers)]
    if arguments.job == "transcribe":  # a restoration runs one thread in each worker
        command += ["--threads", str(arguments.threads), "--batch-size", "4"]
    command += ["--model", arguments.model] if arguments.model else []
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a job.

    Raises:
        JobError: It did not end with exit code 0.
    """
    if process.wait() != 0:
        raise JobError(f"a job ended with exit code {process.returncode}.")


def records(output: Path) -> list[dict[str, Any]]:
    """Return the whole lines of all journals."""
    found = []
    for path in sorted((output / STATE / "journal").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(json.loads(line.decode("utf-8", "surrogateescape")))
            except ValueError:
                continue
    return found


def outputs(output: Path) -> dict[str, bytes]:
    """Return every output file's bytes by its path."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and STATE not in path.relative_to(output).parts
    }


def kill_often(
    clips: Path, output: Path, items: int, work_s: float, arguments: argparse.Namespace
) -> list[int]:
    """Kill the job again and again.

    Returns:
        How many items were journalled after each kill.
    """
    chance = random.Random(arguments.seed)
    moments: list[int] = []
    while len(moments) < arguments.kills:
        before = len(records(output))
        if before >= items:
            break
        process = start(clips, output, arguments)
        # Half of the kills fall anywhere in the start, half anywhere in a share of the work.
        if chance.random() < 0.5:
            while len(records(output)) == before and process.poll() is None:
                time.sleep(0.005)
            share = work_s / max(1, arguments.kills - len(moments))
            time.sleep(chance.random() * share)
        else:
            time.sleep(chance.random() * arguments.start_s)
        process.kill()
        process.wait()
        moments.append(len(records(output)))
        print(f"kill {len(moments)}: {moments[-1]} of {items} items done", file=sys.stderr)
    return moments


def compare(expected: dict[str, bytes], output: Path, ids: set[str]) -> dict[str, int]:
    """Count what was lost, done twice or came out different."""
    found = outputs(output)
    names = expected.keys() | found.keys()
    done = Counter(record["id"] for record in records(output))
    return {
        "different_files": sum(expected.get(name) != found.get(name) for name in names),
        "lost_items": len(ids - done.keys()),
        "items_done_twice": sum(count > 1 for count in done.values()),
    }


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Run the job once whole and once in pieces.

    Raises:
        JobError: A job failed, or was over before it could be killed often enough.
    """
    pack = find_pack(arguments.data)
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = write_folder(pack, root / "clips", arguments.per_group)
        started = time.perf_counter()
        process = start(root / "clips", root / "whole", arguments)
        while not records(root / "whole") and process.poll() is None:
            time.sleep(0.01)
        arguments.start_s = time.perf_counter() - started
        finish(process)
        work_s = time.perf_counter() - started - arguments.start_s
        expected, ids = outputs(root / "whole"), {one["id"] for one in records(root / "whole")}
        moments = kill_often(root / "clips", root / "killed", len(ids), work_s, arguments)
        finish(start(root / "clips", root / "killed", arguments))
        problems = compare(expected, root / "killed", ids)
    if len(moments) < arguments.kills:
        raise JobError(f"the job was over after {len(moments)} kills; take more clips.")
    details = {
        "job": arguments.job,
        "model": public_place(arguments.model) if arguments.model else "the bundled default",
        "source": folder.source,
        "items": len(ids),
        "output_files": len(expected),
        "workers": arguments.workers,
        "seed": arguments.seed,
        "items_done_at_each_kill": moments,
        **problems,
    }
    text = f"job of {len(ids)} clips killed {len(moments)} times"
    batch, threads = "4 clips", arguments.threads
    if arguments.job == "restore":
        batch, threads = "1 file", arguments.workers
    facts = environment("cpu", "float32", threads, batch)
    command = describe_command("bench_kill.py", words, pack is not None)
    claim = "kill" if arguments.job == "transcribe" else f"kill_{arguments.job}"
    figures = [figure(claim, [float(sum(problems.values()))], text)]
    return result(command, facts, figures, details, arguments.quick)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", choices=JOBS, default="transcribe")
    parser.add_argument("--model", help="bundled name or folder (default: the bundled default)")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--per-group", type=int, default=50, help="clips of each of four groups")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run: few clips, three kills")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.per_group, arguments.kills = 5, 3
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_kill", given, parse, measure, quick_may_miss=False)


if __name__ == "__main__":
    sys.exit(main())
