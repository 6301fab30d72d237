"""What joins the streams of a row: its formula, its floor, its size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from speechadapt.adapters.streams import SMOOTHING, Mixer, mixer_parameters, streams_of
from speechadapt.core.errors import ConfigError


def mixer(streams: int = 3, dim: int = 4) -> Mixer:
    torch.manual_seed(0)
    return Mixer(dim, streams)


def states(rows: int = 2, streams: int = 3, positions: int = 5, dim: int = 4) -> Tensor:
    return torch.randn(rows, streams, positions, dim, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_position_is_the_smoothed_softmax_mean_of_its_streams() -> None:
    joins, given = mixer(), states()
    expected = torch.zeros(2, 5, 4)
    for row in range(2):
        for place in range(5):
            beside = torch.cat([given[row, one, place] for one in range(3)])
            inner = functional.silu(joins.inner.weight @ beside + joins.inner.bias)
            weights = torch.softmax(joins.outer.weight @ inner + joins.outer.bias, 0)
            for one in range(3):
                expected[row, place] += (0.99 * weights[one] + 0.01 / 3) * given[row, one, place]
    torch.testing.assert_close(joins(given), expected)


@torch.no_grad()
def test_no_stream_is_ever_left_out() -> None:
    joins = mixer()
    joins.outer.bias.copy_(torch.tensor([1000.0, 0.0, 0.0]))
    weights = joins.weights(states())
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))
    torch.testing.assert_close(weights.amin(-1), torch.full((2, 5), SMOOTHING / 3))


@torch.no_grad()
def test_equal_streams_are_what_they_are() -> None:
    one = states(streams=1)
    torch.testing.assert_close(mixer()(one.expand(-1, 3, -1, -1)), one[:, 0])


@torch.no_grad()
def test_rows_and_positions_are_joined_apart() -> None:
    joins, given = mixer(), states()
    whole = joins(given)
    changed = given.clone()
    changed[1, :, 3] += 1.0
    moved = (joins(changed) - whole).abs().amax(-1) > 1e-6
    assert moved.nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize(("dim", "streams"), [(4, 2), (6, 5)])
def test_its_size_is_the_closed_form(dim: int, streams: int) -> None:
    found = sum(one.numel() for one in Mixer(dim, streams).parameters())
    assert found == mixer_parameters(dim, streams)


def test_a_row_becomes_the_streams_of_the_one_adapter_that_makes_some() -> None:
    known = {"wide": 4, "other": 2}
    assert streams_of(("lora", "wide"), known) == 4
    assert streams_of(("lora",), known) == streams_of((), known) == 1
    with pytest.raises(ConfigError, match=r"'wide' and 'other' were both to make streams"):
        streams_of(("wide", "lora", "other"), known)
