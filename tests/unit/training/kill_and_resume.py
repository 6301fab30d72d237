"""Run by test_loop.py in a process of its own: train straight, be killed, go on in another process.

    python kill_and_resume.py FOLDER

Every run is a forked child, so one import of torch serves all of them. `FOLDER/<task>/straight` and
`FOLDER/<task>/resumed` are left for comparison, and in `FOLDER/together` what two processes learn.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from speechadapt.config.resolve import resolve
from speechadapt.training.loop import train
from tests.tiny_tasks import write_recipe
from tests.unit.training import two_processes

TRAINER = (
    "trainer.steps=5",
    "trainer.checkpoint_every=2",
    "trainer.evaluate_every=3",
    "trainer.accumulate=2",
    "trainer.average=0.9",
)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(words: list[str], configs: Path, folder: Path, kill_at: int | None = None) -> None:
    """Train; where `kill_at` is given, die as by kill -9 in that forward pass."""
    torch.set_num_threads(1)
    asked = resolve(words, [configs])
    objective = asked.module.build(asked.config)
    passes = []

    def die(*_: object) -> None:
        passes.append(None)
        if objective.training and len(passes) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    objective.register_forward_pre_hook(die)
    train(objective, asked.trainer, folder)


def main(base: Path) -> None:
    """Make the three runs of each task."""
    for task in ("ctc", "seq2seq"):
        words = [*write_recipe(base, task, base / "pack"), *TRAINER]
        straight, resumed = base / task / "straight", base / task / "resumed"
        assert in_child(partial(run, words, base, straight)) == 0
        # Two passes a step: the eighth is in the fourth step, after the checkpoint of the second.
        killed = in_child(partial(run, words, base, resumed, kill_at=8))
        assert killed == -signal.SIGKILL, killed
        assert (resumed / "checkpoints/latest").read_text() == "step-00000002"
        assert in_child(partial(run, words, base, resumed)) == 0
    (base / "together").mkdir()
    two_processes.fork(base / "together")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
