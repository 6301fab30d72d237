from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from speechadapt.core.errors import ConfigError
from speechadapt.engines.reuse import DistributedShare, Guess, run_steps


class Falling:
    """x' = x - rate(step) * slope(x); the slope is what costs, and is constant where asked."""

    def __init__(self, constant: bool = False) -> None:
        self.constant = constant
        self.asked: list[list[int]] = []

    def predict(self, states: Sequence[Tensor], steps: Sequence[int]) -> list[Guess]:
        self.asked.append(list(steps))
        return [(torch.ones(2),) if self.constant else (torch.sin(state),) for state in states]

    def advance(self, state: Tensor, guess: Guess, step: int) -> Tensor:
        return state - 0.3 / (step + 1) * guess[0]


START = torch.tensor([1.0, 2.5])


def sequential(steps: int) -> Tensor:
    state = START
    for step in range(steps):
        state = state - 0.3 / (step + 1) * torch.sin(state)
    return state


def by_hand(steps: int, ahead: int, warm_up: int) -> Tensor:
    """The rounds written out: go ahead by the last slope, look there, then take the true steps."""
    state, slope, step = START, torch.zeros(2), 0
    while step < steps:
        count = 1 if step < warm_up else min(ahead, steps - step)
        ahead_of, slopes = state, []
        for number in range(count):
            slopes.append(torch.sin(ahead_of))
            ahead_of = ahead_of - 0.3 / (step + number + 1) * slope
        for number in range(count):
            state = state - 0.3 / (step + number + 1) * slopes[number]
        slope, step = slopes[-1], step + count
    return state


def test_one_step_at_a_time_is_the_plain_process() -> None:
    falling = Falling()
    state, calls = run_steps(falling, START, 5)
    assert torch.equal(state, sequential(5))
    assert calls == 5
    assert falling.asked == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize(("ahead", "warm_up"), [(2, 1), (3, 1), (3, 2), (9, 1)])
def test_rounds_go_ahead_by_the_last_prediction(ahead: int, warm_up: int) -> None:
    falling = Falling()
    state, calls = run_steps(falling, START, 7, ahead=ahead, warm_up=warm_up)
    assert torch.equal(state, by_hand(7, ahead, warm_up))
    assert not torch.equal(state, sequential(7))
    assert torch.allclose(state, sequential(7), atol=0.05)
    assert calls == warm_up + -(-(7 - warm_up) // ahead) == len(falling.asked)
    assert [*chain(*falling.asked)] == list(range(7))


def test_a_prediction_that_never_changes_loses_nothing() -> None:
    state, calls = run_steps(Falling(constant=True), START, 7, ahead=3)
    assert torch.equal(state, run_steps(Falling(constant=True), START, 7)[0])
    assert calls == 3


def test_no_steps_leave_the_state_alone() -> None:
    assert run_steps(Falling(), START, 0)[0] is START


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 0 and 1"):
        run_steps(Falling(), START, 3, ahead=0)
    with pytest.raises(ConfigError, match="got 2 and 0"):
        run_steps(Falling(), START, 3, ahead=2, warm_up=0)


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    falling = Falling()
    state, calls = run_steps(falling, START, 6, share=DistributedShare())
    torch.save(
        {"state": state, "calls": calls, "asked": [*chain(*falling.asked)]}, folder / f"{rank}"
    )
    distributed.destroy_process_group()


def test_two_processes_reach_what_one_reaches_with_two_steps_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_work, args=(rank, tmp_path)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0]
    found = [torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2)]
    expected, calls = run_steps(Falling(), START, 6, ahead=2)
    for one in found:
        assert torch.equal(one["state"], expected)
        assert one["calls"] == calls == 4
    # both take the warm-up; the last round has one step, which both predict
    assert [one["asked"] for one in found] == [[0, 1, 3, 5], [0, 2, 4, 5]]
