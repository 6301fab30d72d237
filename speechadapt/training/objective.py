"""What the training loop needs to know about a task: an objective and its batches."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from speechadapt.core.errors import ConfigError

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Group:
    """How the parameters of one part of an objective are trained.

    Args:
        rate: Factor of the learning rate of every step.
        weight_decay: Decoupled; None takes the trainer's. Vectors are never decayed.
    """

    rate: float = 1.0
    weight_decay: float | None = None


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

    def groups(self) -> Mapping[str, Group]:
        """Return how parts are trained that differ from the rest, by the start of their names.

        A parameter belongs to the longest start that fits its name.
        """
        return {}

    def clipped_apart(self) -> tuple[str, ...]:
        """Return the starts of parameters' names whose gradient norm is clipped on its own.

        The default is none: one norm is taken over all parameters.
        """
        return ()

    def begin(self) -> None:
        """Act once before the first step of a run, on its device; the default does nothing."""

    def batch_loss(self, number: int) -> Tensor:
        """Return the loss of the first process's batch of a step, to be differentiated.

        Args:
            number: Micro-step, from 0.
        """
        batch = {name: part.to(self.device) for name, part in self.batch(number, 0).items()}
        loss: Tensor = self(batch)[0]
        return loss

    def after_step(self, step: int, seconds: float) -> None:
        """Act after an optimiser step; the default does nothing.

        Args:
            step: Steps done.
            seconds: How long this one took, from drawing its batches to the update.
        """

    def finish(self, folder: Path) -> None:
        """Write what is known at the end of the schedule; the default writes nothing.

        Called once, on the first process.

        Args:
            folder: The run's folder.
        """

    def report(self, folder: Path) -> str:
        """Return what `finish` found, as lines for people; empty where there is nothing to say.

        Args:
            folder: The run's folder.
        """
        return ""

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
