"""The product of several branches against a loop over the adapters they came from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from speechadapt.adapters.bank import Bank
from speechadapt.adapters.methods.houlsby import HoulsbyAdapter, HoulsbyConfig
from speechadapt.adapters.methods.lora import LoraAdapter, LoraConfig
from speechadapt.adapters.methods.parallel import ParallelAdapter, ParallelConfig
from speechadapt.adapters.methods.pfeiffer import PfeifferAdapter, PfeifferConfig
from speechadapt.adapters.spec import Adapter, Context
from speechadapt.encoders.sites import Site, at

SUB = Site("layer.0.ffn", "a", "b", 12, 12, tap="n")
MAP = at("layer.0.ffn.up", "a", 12, 20)
X, Y, WIDE = torch.randn(3, 7, 12), torch.randn(3, 7, 12), torch.randn(3, 7, 20)

MAKERS = {
    "parallel": lambda width: ParallelAdapter(SUB, ParallelConfig(bottleneck=width, scale=3.0)),
    "channel": lambda width: ParallelAdapter(
        SUB, ParallelConfig(bottleneck=width, scale_kind="channel", input="residual")
    ),
    "houlsby": lambda width: HoulsbyAdapter(SUB, HoulsbyConfig(bottleneck=width, own_norm=True)),
    "pfeiffer": lambda width: PfeifferAdapter(SUB, PfeifferConfig(bottleneck=width)),
    "lora": lambda width: LoraAdapter(MAP, LoraConfig(rank=width, alpha=3.0, bias=True)),
}


def made(name: str, widths=(3, 5, 4)) -> list[Adapter]:
    torch.manual_seed(0)
    adapters = [MAKERS[name](width) for width in widths]
    with torch.no_grad():
        for adapter in adapters:
            for tensor in adapter.parameters():
                tensor.copy_(torch.randn(tensor.shape))
    return adapters


def looped(adapters: list[Adapter], y: torch.Tensor) -> torch.Tensor:
    return torch.stack([one.leave(X, y, Context()) - y for one in adapters], dim=-1)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 3), (3, 7, 3)], ids=["all", "row", "frame"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_weighted_sum_equals_a_loop(name, shape):
    adapters = made(name)
    y = WIDE if name == "lora" else Y
    bank = Bank([one.branch() for one in adapters])
    weights = torch.rand(shape)
    wanted = (looped(adapters, y) * weights.unsqueeze(-2)).sum(-1)
    found = bank.weighted(bank.inner(X, y), weights)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_scores_equal_those_of_what_a_loop_adds(name):
    adapters = made(name)
    y = WIDE if name == "lora" else Y
    bank = Bank([one.branch() for one in adapters])
    query, key = torch.randn(3, 7, 6), torch.randn(6, y.shape[-1])
    wanted = torch.einsum("bts,sd,btdk->btk", query, key, looped(adapters, y))
    found = bank.scores(bank.inner(X, y), query, key)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)


def test_gradients_reach_every_tensor_of_every_adapter():
    adapters = made("parallel")
    bank = Bank([one.branch() for one in adapters])
    bank.weighted(bank.inner(X, Y), torch.rand(3)).square().sum().backward()
    for adapter in adapters:
        assert all(tensor.grad is not None for tensor in adapter.parameters())


def test_while_values_are_dropped_there_is_no_branch():
    adapter = ParallelAdapter(SUB, ParallelConfig(dropout=0.5))
    assert isinstance(adapter, nn.Module)
    assert adapter.train().branch() is None
    assert adapter.eval().branch() is not None


def test_a_bottleneck_that_adds_to_the_stream_is_no_branch():
    adapter = PfeifferAdapter(SUB, PfeifferConfig(bottleneck=2, residual="stream"))
    assert adapter.branch() is None
