from __future__ import annotations

import pytest
import torch

from speechadapt.training.adapt.consistency import disagreement


def test_it_is_half_the_sum_of_both_divergences() -> None:
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    both = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
    found = disagreement(p.log()[None] + 3.0, q.log()[None])  # scores need no normalising
    assert float(found) == pytest.approx(float(both) / 2, rel=1e-5)
    assert float(disagreement(p.log()[None], p.log()[None])) == pytest.approx(0, abs=1e-7)


def test_positions_that_do_not_count_are_left_out() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    short = disagreement(first[valid], second[valid])
    torch.testing.assert_close(disagreement(first, second, valid), short)


def test_each_distribution_is_drawn_to_the_other_as_it_stands() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    disagreement(first, second).backward()
    assert first.grad is not None
    # of 1/2 KL(target || p) with a fixed target: (p - target) / 2, averaged
    wanted = (first.softmax(-1) - second.softmax(-1)).detach() / 2 / 5
    torch.testing.assert_close(first.grad, wanted)
    torch.testing.assert_close(second.grad, -wanted)
