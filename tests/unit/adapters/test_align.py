from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.align import match

UNITS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
ORDER = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])


@pytest.mark.parametrize("solver", ["assignment", "sinkhorn"])
def test_a_permuted_copy_is_brought_back(solver):
    plan = match(UNITS, UNITS[ORDER], solver, 0.01)
    close = 0 if solver == "assignment" else 1e-4
    torch.testing.assert_close(plan @ UNITS[ORDER], UNITS, rtol=0, atol=close)


def test_assignment_finds_the_least_total_distance():
    """Taking the nearest first would give 0-1 and leave 2 for 10; together that costs more."""
    anchor = torch.tensor([[0.0], [2.0]])
    other = torch.tensor([[1.9], [10.0]])
    assert match(anchor, other).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_soft_plan_has_rows_and_columns_that_sum_to_one():
    other = UNITS[ORDER] + 0.3 * torch.randn(UNITS.shape)
    plan = match(UNITS, other, "sinkhorn", 0.2)
    torch.testing.assert_close(plan.sum(1), torch.ones(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(plan.sum(0), torch.ones(8), rtol=0, atol=1e-3)
    assert bool((plan > 0).all())
    sharp = match(UNITS, other, "sinkhorn", 0.01)
    assert float(sharp.max(1).values.mean()) > float(plan.max(1).values.mean())
