"""Weights against their formulas, written out over a loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from speechadapt.adapters.mixture import Changes
from speechadapt.adapters.spec import Context
from speechadapt.adapters.weighers import Attention, ByRow, Fixed, Gate, pooled
from speechadapt.core.errors import ConfigError, SiteError

HEARD = 3 + 2 * torch.randn(2, 5, 8)
ADDED = torch.randn(3, 2, 5, 6)  # what three parts add
MASK = torch.tensor([[True] * 5, [True, True, False, False, False]])


def changes() -> Changes:
    loose = [(number, added) for number, added in enumerate(ADDED)]
    return Changes(3, [], loose, ADDED[0])


def filled(weigher):
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in weigher.parameters():
            tensor.copy_(torch.randn(tensor.shape))
    return weigher


def normed(states: Tensor) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("value", ["low_rank", "full", "none"])
@pytest.mark.parametrize("key_width", [4, 0])
def test_attention_is_the_formula(key_width, value):
    weigher = filled(Attention(8, 6, key_width, value, value_rank=2, temperature=2.0))
    asked = normed(HEARD) @ weigher.query.weight.T + weigher.query.bias
    answers = ADDED @ weigher.key.T
    width = key_width or 6
    scores = torch.stack([(asked * answer).sum(-1) for answer in answers], -1) / (width**0.5 * 2)
    weights = weigher(HEARD, changes(), Context())
    torch.testing.assert_close(weights, scores.softmax(-1), rtol=1e-4, atol=1e-5)
    total = sum(weights[..., k : k + 1] * ADDED[k] for k in range(3))
    if value == "full":
        total = total @ weigher.value.T
    if value == "low_rank":
        total = total + total @ weigher.value_down.T @ weigher.value_up.T
    found = weigher.finish(changes().weighted(weights))
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-4)
    count = sum(one.numel() for one in weigher.parameters())
    assert count == Attention.count(8, 6, key_width, value, 2)


@pytest.mark.parametrize("value", ["low_rank", "full", "none"])
def test_the_value_starts_at_the_identity(value):
    weigher = Attention(8, 6, 4, value, 2)
    assert torch.equal(weigher.finish(ADDED[0]), ADDED[0])
    assert float(weigher.distance().detach()) == 0.0


def test_the_distance_of_the_value_from_the_identity():
    low = filled(Attention(8, 6, 4, "low_rank", 2))
    full = filled(Attention(8, 6, 4, "full"))
    wanted = (low.value_up @ low.value_down).square().sum()
    torch.testing.assert_close(low.distance(), wanted)
    torch.testing.assert_close(full.distance(), (full.value - torch.eye(6)).square().sum())


def test_attention_starts_near_the_mean():
    weights = Attention(8, 6)(HEARD, changes(), Context()).detach()
    assert float((weights - 1 / 3).abs().max()) < 0.1


def test_a_gate_starts_at_the_mean_and_is_the_formula():
    for per, shape in (("layer", (3,)), ("utterance", (2, 1, 3)), ("token", (2, 5, 3))):
        gate = Gate(8, 3, per)
        weights = gate(HEARD, changes(), Context(MASK))
        assert weights.shape == shape
        torch.testing.assert_close(weights, torch.full(shape, 1 / 3))
        assert sum(one.numel() for one in gate.parameters()) == Gate.count(8, 3, per)
    gate = filled(Gate(8, 3, "token"))
    wanted = (normed(HEARD) @ gate.weight.T + gate.bias).softmax(-1)
    torch.testing.assert_close(gate(HEARD, changes(), Context(MASK)), wanted)


def test_a_gate_of_the_utterance_hears_valid_frames_alone():
    gate = filled(Gate(8, 3, "utterance"))
    other = HEARD.clone()
    other[1, 2:] = 99.0
    first = gate(HEARD, changes(), Context(MASK))
    assert torch.equal(first, gate(other, changes(), Context(MASK)))
    alone = functional.linear(normed(HEARD[1:, :2]).mean(1), gate.weight, gate.bias).softmax(-1)
    torch.testing.assert_close(first[1], alone)


def test_pooling_where_the_mask_does_not_fit_is_refused():
    with pytest.raises(SiteError, match=r"5 frames were to be averaged, .* of 4 only"):
        pooled(HEARD, MASK[:, :4])


def test_fixed_weights_are_in_no_file():
    assert Fixed((0.5, 0.5)).state_dict() == {}
    assert Fixed((0.5, 0.5))(HEARD, changes(), Context()).tolist() == [0.5, 0.5]


def test_weights_by_row_are_those_given():
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    weights = ByRow()(HEARD, changes(), Context(conditions={"adapter_weights": rows}))
    assert torch.equal(weights[:, 0], rows)
    with pytest.raises(ConfigError, match=r"must be \[2, 3\] \(rows by adapters\), got \[2, 2\]"):
        ByRow()(HEARD, changes(), Context(conditions={"adapter_weights": rows[:, :2]}))
