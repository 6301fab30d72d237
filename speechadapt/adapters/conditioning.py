"""What adapters are conditioned on: the utterance as it is heard at a site, or a task by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.spec import Context
from speechadapt.adapters.weighers import pooled
from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.core.shapes import Frames

TASK = "task"


def pooled_stream(
    states: Float[Tensor, "batch frames width"], mask: Bool[Tensor, "batch _"] | None
) -> Float[Tensor, "batch width"]:
    """Return the mean of each row's valid frames, every frame normalised first.

    Args:
        states: What goes into a site.
        mask: True at valid frames; None takes all for valid.
    """
    return pooled(functional.layer_norm(states, states.shape[-1:]), mask)


def task_rows(
    tasks: Sequence[str], context: Context, rows: int, device: torch.device
) -> Int[Tensor, " rows"]:
    """Return the number of each row's task, from the condition `task`.

    Args:
        tasks: Their names.
        context: Holds the condition: one name per row, or one for all.
        rows: Rows of the batch.
        device: Where the numbers are to be.

    Raises:
        ConfigError: The condition is missing, or names no task.
    """
    given = context.conditions.get(TASK)
    if given is None:
        raise ConfigError(
            f"an adapter that routes by task was not told the task; it knows {', '.join(tasks)}. "
            f"Use active(encoder, ..., conditions={{'{TASK}': [...]}})."
        )
    names = [str(one) for one in given]
    unknown = next((one for one in names if one not in tasks), None)
    if unknown is not None:
        raise ConfigError(f"there is no task '{unknown}'.{near_misses(unknown, tasks)}")
    numbers = torch.tensor([tasks.index(one) for one in names], device=device)
    return numbers.expand(rows) if len(numbers) == 1 else numbers


def generating_rows(
    named: nn.Embedding | None,
    heard: nn.Module | None,
    tasks: Sequence[str],
    states: Frames,
    context: Context,
) -> Float[Tensor, "batch size"]:
    """Return what a hypernetwork generates the weights of each row from.

    Args:
        named: An embedding for each task; None where the task is not told.
        heard: Maps a row's mean frame to an embedding; read where no task is told.
        tasks: Names of the tasks.
        states: `[batch, frames, dim]`, what the sub-layer puts out.
        context: Holds the condition `task`, or the mask of the frames to pool.

    Raises:
        ConfigError: The condition is missing, or names no task.
    """
    if named is not None:
        told: Tensor = named(task_rows(tasks, context, len(states), states.device))
        return told
    assert heard is not None
    found: Tensor = heard(pooled_stream(states, context.mask))
    return found
