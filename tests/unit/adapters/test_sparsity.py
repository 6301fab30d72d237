from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.sparsity import (
    chosen,
    densities,
    grasp_scores,
    kept_entries,
    picture,
    snip_scores,
    synflow_scores,
)


def test_a_share_of_a_matrix_is_exact_to_one_entry() -> None:
    assert kept_entries(10, 0.6) == 6
    assert kept_entries(7, 0.5) == 4
    assert kept_entries(30, 0.001) == 1


def test_scores_are_compared_within_a_matrix_or_between_all() -> None:
    scores = [torch.tensor([[4.0, 3.0], [2.0, 1.0]]), torch.tensor([9.0, 8.0])]
    apart = chosen(scores, [2, 1], everywhere=False)
    assert [one.tolist() for one in apart] == [[[True, True], [False, False]], [True, False]]
    together = chosen(scores, [2, 1], everywhere=True)
    assert [one.tolist() for one in together] == [[[True, False], [False, False]], [True, True]]


def test_equal_scores_do_not_keep_more_than_asked() -> None:
    (mask,) = chosen([torch.ones(5, 5)], [7], everywhere=False)
    assert int(mask.sum()) == 7


def test_snip_is_the_gradient_of_the_masks() -> None:
    torch.manual_seed(0)
    weights, x = [torch.randn(3, 4), torch.randn(2, 3)], torch.randn(5, 4)
    masks = [torch.ones_like(one, requires_grad=True) for one in weights]

    def loss(down: Tensor, up: Tensor) -> Tensor:
        return ((x @ down.T).relu() @ up.T).square().sum()

    wanted = torch.autograd.grad(loss(*(w * m for w, m in zip(weights, masks, strict=True))), masks)
    live = [one.clone().requires_grad_() for one in weights]
    found = snip_scores(weights, lambda: list(torch.autograd.grad(loss(*live), live)))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other.abs())


def test_grasp_is_the_weight_times_hessian_times_gradient() -> None:
    torch.manual_seed(0)
    square = torch.randn(6, 6, dtype=torch.float64)
    hessian, start = square + square.T, torch.randn(6, dtype=torch.float64)
    weight = start.clone()
    (found,) = grasp_scores([weight], lambda: [hessian @ weight])
    torch.testing.assert_close(found, start * (hessian @ (hessian @ start)))
    assert torch.equal(weight, start)
    (nothing,) = grasp_scores([weight], lambda: [torch.zeros(6, dtype=torch.float64)])
    assert not bool(nothing.any())


def test_synflow_is_the_flow_of_ones_through_absolute_weights() -> None:
    torch.manual_seed(0)
    down, up = torch.randn(3, 4, 1), torch.randn(2, 3, 1)
    live = [one.abs().requires_grad_() for one in (down, up)]
    flow = (live[1].flatten(1) @ live[0].flatten(1)).sum()
    wanted = torch.autograd.grad(flow, live)
    found = synflow_scores([down, up])
    assert found is not None
    for one, share, weight in zip(found, wanted, live, strict=True):
        torch.testing.assert_close(one, share * weight.detach())
        assert float(one.sum()) == pytest.approx(float(flow.detach()), rel=1e-5)
    assert synflow_scores([torch.ones(3, 4), torch.ones(2, 5)]) is None


def test_the_share_kept_of_a_site_is_that_of_all_its_matrices(tmp_path: Path) -> None:
    masks = {
        "layer.0.ffn:down": torch.tensor([True, False, False]),
        "layer.0.ffn:up": torch.tensor([True, True, False]),
        "layer.1.ffn:down": torch.tensor([False]),
    }
    shares = densities(masks)
    assert shares == {"layer.0.ffn": 0.5, "layer.1.ffn": 0.0}
    pytest.importorskip("matplotlib")
    made = picture({**shares, "layer.1.attn": math.pi / 4}, tmp_path / "density.png", "SNIP")
    assert made.read_bytes().startswith(b"\x89PNG")
