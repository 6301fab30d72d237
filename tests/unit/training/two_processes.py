"""Run by test_loop.py under torchrun: two processes train one small model together."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from speechadapt.training.loop import TrainerConfig, train
from tests.toy_objective import Regression


def main(folder: Path) -> None:
    """Train twice: to the end, and until one of the two processes is asked to stop."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    config = TrainerConfig(
        steps=6, warmup_steps=2, learning_rate=0.01, accumulate=2, log_every=1, evaluate_every=3
    )

    def ask_rank_one_to_stop(passes: int) -> None:
        if rank == 1 and passes == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    if sys.argv[2] == "stop":
        result = train(Regression(spy=ask_rank_one_to_stop), config, folder)
    else:
        objective = Regression(dropout=0.0)
        result = train(objective, config, folder)
        save_file(objective.state_dict(), folder / f"rank{rank}.safetensors")
    (folder / f"rank{rank}.txt").write_text(str(result.step))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
