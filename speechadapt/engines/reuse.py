"""Reuse-then-predict: steps of an iterative process overlapped, on one device or over processes.

A process predicts from its state and advances by the prediction; the prediction is what costs. A
round goes ahead with the last prediction in the place of the ones that are not there yet, predicts
from all states so reached at once, and then takes the true steps with these predictions. Where
successive predictions are equal the result is that of the steps one after the other; elsewhere it
is an approximation.

Source: ParaStep (arXiv 2505.14741), its batched form and the one over processes.
Differs: every process gathers all predictions of a round and takes the steps itself, so that the
processes hold the same state without a broadcast, and equal the batched form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, distributed

from speechadapt.core.errors import ConfigError

State = TypeVar("State")
Guess = tuple[Tensor, ...]


@runtime_checkable
class Stepped(Protocol[State]):
    """A process that goes on step by step."""

    def predict(self, states: Sequence[State], steps: Sequence[int]) -> list[Guess]:
        """Predict from several states at once, each at its own step.

        Args:
            states: At least one.
            steps: Their steps, counted from 0.

        Returns:
            One prediction for each, tensors of equal shapes.
        """

    def advance(self, state: State, guess: Guess, step: int) -> State:
        """Take a step; cheap, and the same everywhere.

        Args:
            state: Before the step.
            guess: The prediction it is taken with.
            step: Counted from 0.
        """


@runtime_checkable
class Share(Protocol):
    """Processes that share the predictions of a round."""

    @property
    def rank(self) -> int:
        """This process, counted from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def gather(self, guess: Guess) -> list[Guess]:
        """Return the predictions of all processes, in the order of their ranks."""


class DistributedShare:
    """The processes of torch's default group, on any of its backends."""

    def __init__(self) -> None:
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()

    def gather(self, guess: Guess) -> list[Guess]:
        """Return the predictions of all processes, in the order of their ranks."""
        columns = []
        for part in guess:
            everyone = [torch.empty_like(part) for _ in range(self.size)]
            distributed.all_gather(everyone, part.contiguous())
            columns.append(everyone)
        return list(zip(*columns, strict=True))


def run_steps(
    process: Stepped[State],
    state: State,
    num_steps: int,
    *,
    ahead: int = 1,
    warm_up: int = 1,
    share: Share | None = None,
) -> tuple[State, int]:
    """Take all steps of a process.

    Args:
        process: What steps.
        state: Before the first step.
        num_steps: How many there are.
        ahead: Steps predicted at once; 1 takes them one after the other. With `share` it is the
            number of processes.
        warm_up: First steps that are taken one after the other, at least 1 where others follow
            several at once, for there must be a prediction to reuse.
        share: Lets each process predict one step of a round; None predicts all here, in one call.

    Returns:
        The last state, and how many predictions were waited for.

    Raises:
        ConfigError: `ahead` or `warm_up` is out of range.
    """
    width = ahead if share is None else share.size
    if width < 1 or warm_up < 1:
        raise ConfigError(f"ahead and warm_up must be 1 or more, got {width} and {warm_up}.")
    guess: Guess = ()
    step = calls = 0
    while step < num_steps:
        count = 1 if step < warm_up else min(width, num_steps - step)
        states = [state]
        for number in range(count - 1):
            states.append(process.advance(states[-1], guess, step + number))
        steps = list(range(step, step + count))
        for number, guess in enumerate(_predicted(process, states, steps, share)):
            state = process.advance(state, guess, step + number)
        step, calls = step + count, calls + 1
    return state, calls


def _predicted(
    process: Stepped[State], states: Sequence[State], steps: Sequence[int], share: Share | None
) -> list[Guess]:
    if share is None or len(states) == 1:
        return process.predict(states, steps)
    own = min(share.rank, len(states) - 1)  # the last round may have less than a step for each
    return share.gather(process.predict([states[own]], [steps[own]])[0])[: len(states)]
