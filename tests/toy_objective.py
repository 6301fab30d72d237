"""Tiny objectives for the tests of the training loop: a regression on made numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from speechadapt.training.objective import Batch, Objective

ROWS = 8


class Regression(Objective):
    """Two layers that learn the sum of four numbers.

    Args:
        dropout: Between the layers.
        rows: Rows of a batch.
        spy: Called before each forward pass with the number of passes so far.
    """

    score = "error"

    def __init__(
        self, dropout: float = 0.1, rows: int = ROWS, spy: Callable[[int], None] | None = None
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
        )
        self.rows = rows
        self.spy = spy
        self.passes = 0

    def batch(self, step: int, rank: int) -> Batch:
        """Draw rows for one micro-step of one process."""
        random = torch.Generator().manual_seed(1000 * rank + step)
        numbers = torch.randn(self.rows, 4, generator=random)
        return {"numbers": numbers, "sums": numbers.sum(1, keepdim=True)}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the mean squared error."""
        if self.spy is not None and self.training:
            self.spy(self.passes)
        self.passes += 1
        loss = (self.layers(batch["numbers"]) - batch["sums"]).square().mean()
        return loss, {"half": float(loss.detach()) / 2}

    def evaluate(self) -> dict[str, float]:
        """Score rows that no step draws."""
        return {"error": float(self(Regression.batch(self, 10**6, 0))[0])}

    def save(self, folder: Path) -> None:
        """Write the weights."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "model.safetensors")


class Interleaved(Regression):
    """One process that sees, micro-step after micro-step, what two processes would."""

    def batch(self, step: int, rank: int) -> Batch:
        """Draw what process `step % 2` draws at micro-step `step // 2`."""
        return super().batch(step // 2, step % 2)
