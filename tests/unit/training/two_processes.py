"""Two processes train one small model together: forked here, or (slow tests) under torchrun."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from speechadapt.training.loop import TrainerConfig, train
from tests.toy_objective import Regression


def fork(folder: Path) -> None:
    """Train to the end in two forked processes, so that one import of torch serves both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_as_rank, args=(rank, folder)) for rank in (0, 1)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]


def _as_rank(rank: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    main(folder)


def main(folder: Path, stop: bool = False) -> None:
    """Train to the end, or until one of the two processes is asked to stop."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    config = TrainerConfig(
        steps=6, warmup_steps=2, learning_rate=0.01, accumulate=2, log_every=1, evaluate_every=3
    )

    def ask_rank_one_to_stop(passes: int) -> None:
        if rank == 1 and passes == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    if stop:
        result = train(Regression(spy=ask_rank_one_to_stop), config, folder)
    else:
        objective = Regression(dropout=0.0)
        result = train(objective, config, folder)
        save_file(objective.state_dict(), folder / f"rank{rank}.safetensors")
    (folder / f"rank{rank}.txt").write_text(str(result.step))


if __name__ == "__main__":
    main(Path(sys.argv[1]), stop=True)
