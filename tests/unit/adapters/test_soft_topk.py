from __future__ import annotations

import math

import pytest
import torch

from speechadapt.adapters.soft_topk import soft_topk

ROUNDS = (0, 200)  # solved at once, and by as many projections as it takes


def scores(rows: int = 4, size: int = 50, spread: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(rows, size, generator=generator)


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_weights_sum_to_k(rounds, spread):
    counts = torch.tensor([1.0, 5.0, 20.5, 49.0])
    weights = soft_topk(scores(spread=spread), counts, iterations=rounds)
    assert weights.dtype == torch.float32
    assert bool(((weights >= 0) & (weights <= 1)).all())
    # projections get there slowly where nearly all weights are 1: 49 of 50 frames
    torch.testing.assert_close(weights.sum(1), counts, rtol=0, atol=3e-2 if rounds else 1e-4)


def test_the_projections_arrive_at_the_exact_solution():
    counts = torch.tensor([2.0, 6.0, 12.0, 25.0])
    exact = soft_topk(scores(), counts, temperature=0.5)
    found = soft_topk(scores(), counts, temperature=0.5, iterations=300)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)


def test_no_other_weights_are_better():
    """Moving weight between any two frames lowers the objective."""
    values, temperature = scores(1, 8), 0.7
    best = soft_topk(values, torch.tensor([3.0]), temperature=temperature)[0]

    def objective(weights: torch.Tensor) -> float:
        entropy = -(weights * (weights.clamp(min=1e-12).log() - 1.0)).sum()
        return float((weights * values[0]).sum() + temperature * entropy)

    top = objective(best)
    for one in range(8):
        for other in range(8):
            moved = best.clone()
            moved[one] += 1e-2
            moved[other] -= 1e-2
            if one != other and bool(((moved >= 0) & (moved <= 1)).all()):
                assert objective(moved) < top


def test_a_cold_choice_is_hard():
    values = scores()
    weights = soft_topk(values, torch.full((4,), 7.0), temperature=1e-3)
    chosen = torch.zeros_like(values).scatter(1, values.topk(7).indices, 1.0)
    torch.testing.assert_close(weights, chosen, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_padding_takes_no_part(rounds):
    values = scores(2, 20)
    mask = torch.arange(20) < torch.tensor([20, 12])[:, None]
    counts = torch.tensor([5.0, 3.0])
    whole = soft_topk(values.masked_fill(~mask, 99.0), counts, mask, iterations=rounds)
    alone = soft_topk(values[1:, :12], counts[1:], iterations=rounds)
    assert not bool(whole[1, 12:].any())
    torch.testing.assert_close(whole[1:, :12], alone, rtol=0, atol=1e-5)


def test_rows_without_a_choice_have_weight_one_and_no_nan():
    values = scores(2, 6).requires_grad_()
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    weights = soft_topk(values, torch.tensor([2.0, 3.0]), mask)
    assert weights[1].tolist() == [1, 1, 1, 0, 0, 0]
    weights.square().sum().backward()
    assert bool(values.grad.isfinite().all())
    assert not bool(values.grad[1].any())


def test_the_gradient_is_that_of_the_solution():
    """Finite differences, at frames of weight 1 and below."""
    values = scores(1, 9).double().requires_grad_()
    factors = torch.linspace(-1, 1, 9, dtype=torch.double)

    def loss(given: torch.Tensor) -> torch.Tensor:
        return (soft_topk(given, torch.tensor([4.0])).double() * factors).sum()

    loss(values).backward()
    step, gradient = 1e-2, values.grad[0]
    values = values.detach()
    for place in range(9):
        moved = torch.zeros_like(values)
        moved[0, place] = step
        slope = (loss(values + moved) - loss(values - moved)) / (2 * step)
        assert math.isclose(float(slope), float(gradient[place]), abs_tol=2e-3)


def test_autocast_leaves_it_in_float32():
    values = scores().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = soft_topk(values, torch.full((4,), 3.0))
    assert torch.equal(found, soft_topk(values.float(), torch.full((4,), 3.0)))


def test_scores_that_are_sorted_already_give_the_same():
    values, counts = scores(), torch.tensor([1.0, 5.0, 20.5, 49.0])
    mask = torch.arange(50) < torch.tensor([50, 40, 30, 20])[:, None]
    lowest = values.masked_fill(~mask, torch.finfo(torch.float32).min)
    for temperature in (1.0, 0.5):
        wanted = soft_topk(values, counts, mask, temperature)
        found = soft_topk(lowest, counts, mask, temperature, ascending=lowest.sort(1).values)
        torch.testing.assert_close(found, wanted)
