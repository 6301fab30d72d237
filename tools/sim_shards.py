"""Plan ten million made rows as shards, then resume: seconds and memory of both.

    python tools/sim_shards.py --output docs/results/shards.json
    python tools/sim_shards.py --quick      # a smoke run: twenty thousand rows

Each step runs in a process of its own, whose peak memory is read when it ends. All shards but two
are marked as done before the resume is timed, and one of the two is half done: the resume reads the
plan, finds both and, in the open one, the rows that are left.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_facts import ROOT, describe_command, environment, figure, resident, result, run_tool

from speechadapt.core.errors import JobError
from speechadapt.jobs.ledger import Journal, Ledger, Record
from speechadapt.jobs.shard_plan import ShardLimits, plan_shards, read_shard_plan, shard_rows
from speechadapt.jobs.shard_run import finished_shards, shard_path

_BLOCK = 100_000


def write_rows(path: Path, rows: int) -> None:
    """Write a manifest of clips of 5 to 15 seconds."""
    with path.open("w", encoding="utf-8") as handle:
        for start in range(0, rows, _BLOCK):
            handle.writelines(
                f'{{"audio_filepath": "corpus/{number // 5000:06d}/{number:09d}.flac", '
                f'"duration": {5 + number * 7919 % 1000 / 100}, "speaker": "s{number % 4001}", '
                f'"text": "what was said in clip {number}"}}\n'
                for number in range(start, min(rows, start + _BLOCK))
            )


def mark_done(root: Path) -> None:
    """Mark all shards but the last two as done; half of one of these is journalled."""
    plan = read_shard_plan(root / "plan")
    for shard in plan.shards[:-2]:
        path = shard_path(root / "out", shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".done").write_text('{"samples": 1}')
    opened = plan.shards[-2]
    journal = Journal(root / "journal" / "w.jsonl")
    rows = shard_rows(plan, opened)[: opened.items // 2]
    journal.append([Record(row["audio_filepath"], "k", "ok", row=row) for row in rows])
    journal.close()


def resume(root: Path) -> dict[str, int]:
    """Find what is left to do."""
    plan = read_shard_plan(root / "plan")
    done = finished_shards(root / "out")
    left = [shard for shard in plan.shards if shard.name not in done]
    journalled = Ledger(root / "journal").entries
    rows = [row for row in shard_rows(plan, left[0]) if row["audio_filepath"] not in journalled]
    return {"shards": len(plan.shards), "left": len(left), "rows_left": len(rows)}


def step(name: str, root: Path) -> dict[str, Any]:
    """Run one step and say what it took; called in a process of its own."""
    began = time.perf_counter()
    facts: dict[str, Any] = {}
    if name == "plan":
        plan = plan_shards(root / "rows.jsonl", root / "plan", ShardLimits())
        facts = {"items": plan.items, "hours": round(plan.audio_s / 3600)}
    else:
        facts = resume(root)
    peak = resident("VmHWM")
    seconds = time.perf_counter() - began
    cpu_s = round(time.process_time(), 3)
    return {
        "seconds": round(seconds, 3),
        "cpu_s": cpu_s,
        "peak_mb": round(peak / 2**20, 1),
        **facts,
    }


def apart(name: str, root: Path) -> dict[str, Any]:
    """Run a step in a process of its own.

    Raises:
        JobError: It failed.
    """
    command = [sys.executable, str(Path(__file__)), "--step", name, "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise JobError(f"the step '{name}' failed: {done.stderr.strip()[-500:]}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Plan and resume."""
    with TemporaryDirectory(dir=arguments.root) as temporary:
        root = Path(temporary)
        write_rows(root / "rows.jsonl", arguments.rows)
        manifest_mb = (root / "rows.jsonl").stat().st_size / 1e6
        planned = apart("plan", root)
        mark_done(root)
        resumed = apart("resume", root)
    details = {"rows": arguments.rows, "manifest_mb": round(manifest_mb), "plan": planned}
    details["resume"] = resumed
    text = f"run over {arguments.rows:,} made rows"
    figures = [
        figure("shard_plan", [planned["seconds"]], text),
        figure("shard_plan_memory", [planned["peak_mb"]], text),
        figure("shard_resume", [resumed["seconds"]], text),
    ]
    facts = environment("cpu", "none", 1, "none")
    command = describe_command("sim_shards.py", words, False)
    return result(command, facts, figures, details, arguments.quick)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--root", type=Path, help="where to put the rows (default: temporary)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run: twenty thousand rows")
    parser.add_argument("--step", choices=("plan", "resume"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.rows = 20_000
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    arguments = parse(given)
    if arguments.step is not None:
        print(json.dumps(step(arguments.step, arguments.root)))
        return 0
    return run_tool("sim_shards", given, parse, measure, quick_may_miss=False)


if __name__ == "__main__":
    sys.exit(main())
