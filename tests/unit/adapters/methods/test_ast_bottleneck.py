"""The study's bottleneck: its four forms, and the dead start of its released code shown absent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from speechadapt.adapters.methods.ast_bottleneck import (
    METHOD,
    AstBottleneckAdapter,
    AstBottleneckConfig,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import Site

SITE = Site("layer.0.ffn", "mlp", "mlp", 16, 16, tap="layernorm_after", kind="ASTMLP")
CONFIG = AstBottleneckConfig(bottleneck=4, initial="normal")
CONTEXT = Context()


def _branch(adapter: AstBottleneckAdapter, states: Tensor) -> Tensor:
    block = adapter.bottleneck
    down = functional.gelu(states @ block.down.weight.T + block.down.bias)
    return down @ block.up.weight.T + block.up.bias


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_each_form_computes_what_the_study_describes(order: str, residual: bool) -> None:
    adapter = AstBottleneckAdapter(SITE, replace(CONFIG, order=order, residual=residual))
    x, y = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    read = x if order == "parallel" else y
    expected = _branch(adapter, read)
    expected = expected + y if order == "parallel" else expected
    expected = expected + read if residual else expected
    torch.testing.assert_close(adapter.leave(x, y, CONTEXT), expected)


@pytest.mark.parametrize(("order", "residual"), [("parallel", False), ("sequential", True)])
def test_the_residual_is_by_default_where_the_study_advises_it(order: str, residual: bool) -> None:
    adapter = AstBottleneckAdapter(SITE, AstBottleneckConfig(bottleneck=4, order=order))
    assert adapter.residual is residual
    y = torch.randn(2, 5, 16)
    assert torch.equal(adapter.leave(torch.randn(2, 5, 16), y, CONTEXT), y)


def _moved(adapter: AstBottleneckAdapter) -> dict[str, bool]:
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=5e-3, weight_decay=0.0)
    x, y, wanted = torch.randn(4, 5, 16), torch.randn(4, 5, 16), torch.randn(4, 5, 16)
    for _ in range(100):
        optimiser.zero_grad()
        (adapter.leave(x, y, CONTEXT) - wanted).square().mean().backward()
        optimiser.step()
    return {name: not torch.equal(before[name], now) for name, now in adapter.state_dict().items()}


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_a_hundred_steps_move_both_projections(order: str) -> None:
    adapter = AstBottleneckAdapter(SITE, AstBottleneckConfig(bottleneck=4, order=order))
    assert all(_moved(adapter).values())


def test_with_both_projections_at_zero_only_the_last_bias_would_move() -> None:
    adapter = AstBottleneckAdapter(SITE, AstBottleneckConfig(bottleneck=4))
    torch.nn.init.zeros_(adapter.bottleneck.down.weight)
    assert {name for name, moved in _moved(adapter).items() if moved} == {"bottleneck.up.bias"}


def test_the_closed_form_counts_every_parameter() -> None:
    counted = sum(one.numel() for one in AstBottleneckAdapter(SITE, CONFIG).parameters())
    assert METHOD.parameters(SITE, CONFIG) == counted == 2 * 16 * 4 + 4 + 16


def test_a_map_of_unequal_widths_is_refused() -> None:
    with pytest.raises(SiteError, match="reads 16 values and writes 24"):
        AstBottleneckAdapter(replace(SITE, role="layer.0.ffn.up", dim_out=24), CONFIG)


def test_a_bottleneck_above_the_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.bottleneck must be between 1 and 16"):
        AstBottleneckAdapter(SITE, replace(CONFIG, bottleneck=17))
