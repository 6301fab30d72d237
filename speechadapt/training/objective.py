"""What the training loop needs to know about a task: an objective and its batches."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from speechadapt.core.errors import ConfigError

Batch = dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A model with its loss.

    Attributes:
        ids: Ids of every recording that training may read, for the model card.
        score: Name of the evaluation figure that `best` minimises.
        skips_parameters: Whether a step may leave parameters unused (layer drop), which data
            parallelism must be told.
    """

    ids: tuple[str, ...] = ()
    score: str = "loss"
    skips_parameters: bool = False

    @abstractmethod
    def batch(self, step: int, rank: int) -> Batch:
        """Build the batch of one step on one process, on the CPU; a pure function of its arguments.

        Args:
            step: Micro-step, from 0.
            rank: Process number.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss.

        Args:
            batch: As built by `batch`, on the model's device.

        Returns:
            A scalar to minimise, and figures to log.
        """

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Score the model on held-out data; lower `score` is better."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model in its ordinary on-disk format."""

    def summary(self) -> dict[str, str]:
        """Say what a run reads and how much of it a step takes, for the plan of a dry run."""
        return {}

    def checkpoint_gradients(self) -> None:
        """Recompute activations of the transformers models within during the backward pass.

        Raises:
            ConfigError: No model within offers it.
        """
        from transformers import PreTrainedModel

        found = [part for part in self.modules() if isinstance(part, PreTrainedModel)]
        able = [part for part in found if part.supports_gradient_checkpointing]
        if not able:
            raise ConfigError(
                "trainer.gradient_checkpointing was asked for; "
                f"{type(self).__name__} holds no transformers model that offers it."
            )
        with warnings.catch_warnings():
            # Its new name is not in every release of transformers 5.
            warnings.simplefilter("ignore", FutureWarning)
            for part in able:
                part.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device
