"""The adapter around a linear map, in its three places, at square and other maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from speechadapt.adapters.methods.linear_bottleneck import (
    METHOD,
    LinearBottleneckAdapter,
    LinearBottleneckConfig,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

UP = at("layer.0.ffn.up", "fc1", 8, 12)
DOWN = at("layer.0.ffn.down", "fc2", 12, 8)
POINTWISE = at("layer.0.conv.pw1", "pw1", 8, 16, "Conv1d", ConvShape(1))
CONFIG = LinearBottleneckConfig(bottleneck=3, initial="normal", scale=0.7)
CONTEXT = Context()


def _branch(adapter: LinearBottleneckAdapter, states: Tensor) -> Tensor:
    block = adapter.bottleneck
    return 0.7 * torch.tanh(states @ block.down.weight.T) @ block.up.weight.T


def _run(adapter: LinearBottleneckAdapter, module: nn.Module, x: Tensor) -> Tensor:
    entered = adapter.enter(x, CONTEXT)
    return adapter.leave(entered, module(entered), CONTEXT)


@pytest.mark.parametrize("site", [UP, DOWN])
def test_before_a_map_it_changes_what_goes_in(site: Site) -> None:
    adapter = LinearBottleneckAdapter(site, replace(CONFIG, placement="before"))
    module, x = nn.Linear(site.dim_in, site.dim_out), torch.randn(2, 5, site.dim_in)
    torch.testing.assert_close(_run(adapter, module, x), module(x + _branch(adapter, x)))


@pytest.mark.parametrize("site", [UP, DOWN])
def test_after_a_map_it_changes_what_comes_out(site: Site) -> None:
    adapter = LinearBottleneckAdapter(site, replace(CONFIG, placement="after"))
    module, x = nn.Linear(site.dim_in, site.dim_out), torch.randn(2, 5, site.dim_in)
    out = module(x)
    torch.testing.assert_close(_run(adapter, module, x), out + _branch(adapter, out))


@pytest.mark.parametrize("site", [UP, DOWN])
def test_beside_a_map_it_spans_both_widths(site: Site) -> None:
    adapter = LinearBottleneckAdapter(site, replace(CONFIG, placement="parallel"))
    module, x = nn.Linear(site.dim_in, site.dim_out), torch.randn(2, 5, site.dim_in)
    torch.testing.assert_close(_run(adapter, module, x), module(x) + _branch(adapter, x))


@pytest.mark.parametrize(
    ("role", "placement"),
    [
        ("layer.0.attn.q", "before"),
        ("layer.0.attn.v", "before"),
        ("layer.0.ffn1.up", "before"),
        ("layer.0.attn.out", "after"),
        ("layer.0.ffn2.down", "after"),
    ],
)
def test_auto_stands_before_maps_that_open_and_after_maps_that_close(
    role: str, placement: str
) -> None:
    adapter = LinearBottleneckAdapter(at(role, "map", 8, 8), CONFIG)
    assert adapter.placement == placement


@pytest.mark.parametrize("placement", ["before", "after", "parallel"])
def test_a_convolution_of_one_tap_is_adapted_as_the_linear_map_it_is(placement: str) -> None:
    config = replace(CONFIG, placement=placement)
    conv = nn.Conv1d(8, 16, 1)
    linear = nn.Linear(8, 16)
    with torch.no_grad():
        linear.weight.copy_(conv.weight[:, :, 0])
        linear.bias.copy_(conv.bias)
    on_conv = LinearBottleneckAdapter(POINTWISE, config)
    on_linear = LinearBottleneckAdapter(at("layer.0.ffn.up", "fc1", 8, 16), config)
    on_linear.load_state_dict(on_conv.state_dict())
    x = torch.randn(2, 5, 8)
    expected = _run(on_linear, linear, x).transpose(1, 2)
    torch.testing.assert_close(_run(on_conv, conv, x.transpose(1, 2)), expected)


@pytest.mark.parametrize("placement", ["before", "after", "parallel"])
def test_the_default_start_is_exactly_the_identity(placement: str) -> None:
    config = LinearBottleneckConfig(bottleneck=3, placement=placement)
    adapter, module = LinearBottleneckAdapter(UP, config), nn.Linear(8, 12)
    x = torch.randn(2, 5, 8)
    assert torch.equal(_run(adapter, module, x), module(x))


def test_a_learned_scale_starts_at_its_setting_and_gets_a_gradient() -> None:
    adapter = LinearBottleneckAdapter(DOWN, replace(CONFIG, learn_scale=True))
    x, y = torch.randn(2, 5, 12), torch.randn(2, 5, 8)
    torch.testing.assert_close(adapter.leave(x, y, CONTEXT), y + _branch(adapter, y))
    adapter.leave(x, y, CONTEXT).square().sum().backward()
    assert isinstance(adapter.scale, nn.Parameter)
    assert adapter.scale.grad is not None
    assert adapter.scale.grad.abs() > 0


@pytest.mark.parametrize("placement", ["auto", "before", "after", "parallel"])
@pytest.mark.parametrize("learn_scale", [True, False])
@pytest.mark.parametrize("site", [UP, DOWN, POINTWISE])
def test_the_closed_form_counts_every_parameter(
    site: Site, learn_scale: bool, placement: str
) -> None:
    config = replace(CONFIG, placement=placement, learn_scale=learn_scale)
    adapter = LinearBottleneckAdapter(site, config)
    counted = sum(parameter.numel() for parameter in adapter.parameters())
    assert METHOD.parameters(site, config) == counted


@pytest.mark.parametrize(
    "site",
    [
        Site("layer.0.attn", "self_attn", "self_attn.out_proj", 8, 8),
        at("stem.conv.0", "conv1", 8, 8, "Conv1d", ConvShape(3, 1, 1)),
        at("layer.0.norm.attn", "norm", 8, 8, "LayerNorm"),
    ],
)
def test_what_is_no_linear_map_is_refused_by_its_role(site: Site) -> None:
    with pytest.raises(SiteError, match=f"one linear map, but '{site.role}'"):
        LinearBottleneckAdapter(site, CONFIG)


def test_a_bottleneck_above_the_narrower_side_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.bottleneck must be between 1 and 8"):
        LinearBottleneckAdapter(UP, replace(CONFIG, bottleneck=9, placement="parallel"))
