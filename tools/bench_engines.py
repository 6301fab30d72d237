"""Compare the wall time of one job on every engine, whole commands in processes of their own.

    python tools/bench_engines.py --data PACK --output docs/results/engines.json
    python tools/bench_engines.py --quick      # a smoke run: few clips

Each worker has one thread. Outputs must be byte-identical; exit code 1 where they are not, or a bar
is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_clips import find_pack, write_folder
from bench_facts import describe_command, environment, figure, result, run_tool
from bench_kill import outputs

from speechadapt.core.errors import JobError

CASES = {
    "serial": ("--engine", "serial", "--threads", "1"),
    "process 1": ("--engine", "process", "--workers", "1", "--threads", "1"),
    "process 2": ("--engine", "process", "--workers", "2", "--threads", "2"),
    "ray 1": ("--engine", "ray", "--address", "local", "--workers", "1", "--threads", "1"),
    "ray 2": ("--engine", "ray", "--address", "local", "--workers", "2", "--threads", "2"),
}


def run_once(clips: Path, output: Path, words: Sequence[str]) -> float:
    """Run a job and return the seconds it took, from process start to exit.

    Raises:
        JobError: It did not end with exit code 0.
    """
    command = [sys.executable, "-m", "speechadapt.cli.main", "transcribe", str(clips)]
    command += ["-o", str(output), "--device", "cpu", *words]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise JobError(f"'{' '.join(words)}' ended with {done.returncode}: {done.stderr[-300:]}")
    return time.perf_counter() - began


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Time every engine, in turn, as often as asked.

    Raises:
        JobError: Ray is missing, a job failed, or outputs differ between engines.
    """
    if find_spec("ray") is None:
        raise JobError("ray is not installed: pip install 'speechadapt[ray]'.")
    pack = find_pack(arguments.data)
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = write_folder(pack, root / "clips", arguments.per_group)
        expected: dict[str, bytes] = {}
        for repeat in range(arguments.repeats):
            for number, (name, engine) in enumerate(CASES.items()):
                output = root / f"out-{repeat}-{number}"
                seconds[name].append(run_once(root / "clips", output, engine))
                found = outputs(output)
                expected = expected or found
                if found != expected:
                    raise JobError(f"engine '{name}' writes other bytes than serial.")
    ratios = {
        "ray_overhead": [b / a for a, b in zip(seconds["serial"], seconds["ray 1"], strict=True)],
        "ray_two": [a / b for a, b in zip(seconds["ray 1"], seconds["ray 2"], strict=True)],
        "process_two": [
            a / b for a, b in zip(seconds["process 1"], seconds["process 2"], strict=True)
        ],
    }
    text = f"runs over {folder.count} clips, one thread a worker"
    figures = [figure(name, values, text) for name, values in ratios.items()]
    details = {"clips": folder.count, "source": folder.source, "seconds": seconds}
    command = describe_command("bench_engines.py", words, pack is not None)
    facts = environment("cpu", "float32", 1, "16 clips")
    return result(command, facts, figures, details, arguments.quick)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--per-group", type=int, default=500, help="clips of each of four groups")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run: few clips, once")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.per_group, arguments.repeats = 3, 1
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_engines", given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())
