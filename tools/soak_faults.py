"""Break jobs a hundred times at random, and show that nothing is lost, doubled or different.

Jobs over made tones run one after the other with a quick stand-in for the model. Faults strike at
random moments: the driver or a worker is killed with signal 9, the driver is asked to stop, a
journal's last line is torn, a second driver is started on the same folder, an item kills every
worker it meets, the disk is full. A job is begun again until it is whole, then compared with one
that nothing happened to.

    python tools/soak_faults.py --faults 100
    python tools/soak_faults.py --faults 100 --engine ray
    python tools/soak_faults.py --quick     # six faults

A full disk is a tmpfs of its own, which takes root; without it that fault is left out and said so.
Exit code 1 where anything was lost, doubled or different.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_facts import ROOT
from bench_kill import STATE, outputs, records

sys.path.insert(0, str(ROOT))

from tests.e2e.fake_recogniser import HOOK, write_tones

FAULTS = ("driver", "worker", "stop", "torn", "second", "poison", "disk")
_POISON_HZ = "270"


class Soak:
    """Jobs over the same tones, each with its share of faults.

    Args:
        root: A folder to work in.
        engine: The engine's words on the command line.
        seed: Of the faults and their moments.
    """

    def __init__(self, root: Path, engine: Sequence[str], seed: int) -> None:
        self.root, self.engine, self.chance = root, engine, random.Random(seed)
        self.struck: Counter[str] = Counter()
        self.problems: list[str] = []
        write_tones(root / "tones", 24)
        assert self.start(root / "whole").wait() == 0
        self.expected = outputs(root / "whole")
        self.items = {record["id"] for record in records(root / "whole")}

    def start(self, output: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a job in a process of its own."""
        command = [sys.executable, "-m", "speechadapt.cli.main", "transcribe"]
        command += [str(self.root / "tones"), "-o", str(output), "--no-vad", "--batch-size", "2"]
        surroundings = os.environ | {"SPEECHADAPT_LOADER": HOOK, "PYTHONPATH": str(ROOT)}
        with (self.root / "errors.txt").open("ab") as errors:
            return subprocess.Popen(
                [*command, *self.engine, *more],
                env=surroundings | {"FAKE_PAUSE_S": "0.05"} | environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def job(self, number: int, most: int) -> None:
        """Run one job to its end, with at most so many faults on the way; then compare."""
        output = self.root / f"job{number}"
        for _ in range(most):
            if len(records(output)) >= len(self.items):
                break
            self.strike(self.chance.choice(FAULTS), output)
        code = self.start(output, "--retry-failed").wait()
        self.check(code == 0, f"job {number} ended with code {code}")
        self.compare(number, output)

    def strike(self, fault: str, output: Path) -> None:
        """Begin a job and let a fault happen to it."""
        if fault == "disk" and os.geteuid() != 0:
            return
        self.struck[fault] += 1
        if fault == "disk":
            self.fill_disk()
            return
        poison = {"FAKE_DIE_AT_HZ": _POISON_HZ} if fault == "poison" else {}
        process = self.start(output, **poison)
        if fault == "poison":
            process.wait()
            return
        self.wait_a_while(output, process)
        if fault in ("driver", "torn"):
            process.kill()
        elif fault == "stop":
            process.send_signal(signal.SIGTERM)
        elif fault == "worker":
            self.kill_worker(process.pid)
        elif fault == "second":
            running = process.poll() is None
            code = self.start(output).wait()
            self.check(code in (0, 1) if running else code in (0, 3), f"second driver: {code}")
        process.wait()
        if fault == "torn":
            self.tear(output)

    def wait_a_while(self, output: Path, process: subprocess.Popen[bytes]) -> None:
        """Wait until something is done, then a random moment."""
        before = len(records(output))
        while len(records(output)) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(self.chance.random() * 0.3)

    def kill_worker(self, driver: int) -> None:
        """Kill one of a driver's workers, if it has any."""
        import psutil

        try:
            below = psutil.Process(driver).children(recursive=True)
            workers = [one for one in below if is_worker(one)]
            if workers:
                self.chance.choice(workers).kill()
        except psutil.Error:
            return

    def fill_disk(self) -> None:
        """Run a job on a file system that is too small for it; what it wrote must be whole."""
        place = self.root / "small"
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)
        try:
            code = self.start(place / "out").wait()
            self.check(code in (1, 3), f"a full disk ended with code {code}")
            found = outputs(place / "out")
            wrong = [name for name, data in found.items() if self.expected.get(name) != data]
            self.check(set(wrong) <= {"transcripts.jsonl"}, f"half files on a full disk: {wrong}")
        finally:
            subprocess.run(["umount", str(place)], check=True)

    def tear(self, output: Path) -> None:
        """Leave half of a journal's last line, as a crash of the machine may."""
        paths = [path for path in (output / STATE / "journal").glob("*-worker-*.jsonl")]
        full = [path for path in paths if path.stat().st_size > 80]
        if full:
            path = self.chance.choice(full)
            path.write_bytes(path.read_bytes()[:-40])

    def compare(self, number: int, output: Path) -> None:
        """Compare a job that is whole with one that nothing happened to."""
        found = outputs(output)
        names = self.expected.keys() | found.keys()
        different = [name for name in names if self.expected.get(name) != found.get(name)]
        done = Counter((record["id"], record["attempts"]) for record in records(output))
        twice = [key for key, count in done.items() if count > 1]
        lost = self.items - {name for name, _ in done}
        self.check(not different, f"job {number}: {sorted(different)} differ")
        self.check(not twice, f"job {number}: {twice} done twice")
        self.check(not lost, f"job {number}: {sorted(lost)} lost")

    def check(self, good: bool, problem: str) -> None:
        """Note a problem unless all is well."""
        if not good:
            self.problems.append(problem)
            print(problem, file=sys.stderr, flush=True)


def is_worker(process: Any) -> bool:
    """Say whether a process is a worker of the process engine or an actor of Ray."""
    words = " ".join(process.cmdline())
    return "spawn_main" in words or words.startswith("ray::_Holder")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--engine", choices=("serial", "process", "ray"), default="process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="six faults")
    arguments = parser.parse_args(words)
    engine = {
        "serial": ("--engine", "serial"),
        "process": ("--engine", "process", "--workers", "2"),
        "ray": ("--engine", "ray", "--address", "local", "--workers", "2"),
    }[arguments.engine]
    wanted = 6 if arguments.quick else arguments.faults
    with TemporaryDirectory() as temporary:
        soak, jobs = Soak(Path(temporary), engine, arguments.seed), 0
        while (left := wanted - soak.struck.total()) > 0:
            soak.job(jobs, min(left, 5))
            jobs += 1
            print(f"{soak.struck.total()} faults, {jobs} jobs", file=sys.stderr, flush=True)
    facts = {"engine": arguments.engine, "seed": arguments.seed, "jobs": jobs}
    print(json.dumps({**facts, "faults": dict(soak.struck), "problems": soak.problems}))
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
