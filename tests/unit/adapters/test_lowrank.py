from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from speechadapt.adapters.lowrank import (
    Factors,
    KernelDelta,
    LowRank,
    build,
    check_bias,
    is_depthwise,
    num_parameters,
    rank_limit,
    scaling,
)
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

LINEAR = at("layer.0.ffn.up", "fc1", 6, 10)
STEM = Site("stem.conv.1", "c", "c", 6, 8, kind="Conv1d", conv=ConvShape(3, 2, 1))
POINT = Site("layer.0.conv.pw1", "p", "p", 6, 12, kind="Conv1d", conv=ConvShape(1))
DEPTH = Site("layer.0.conv.depthwise", "d", "d", 6, 6, kind="Conv1d", conv=ConvShape(5, groups=6))
SITES = {"linear": LINEAR, "stem": STEM, "pointwise": POINT, "depthwise": DEPTH}


def module_at(site: Site, bias: bool = True) -> nn.Linear | nn.Conv1d:
    if site.conv is None:
        return nn.Linear(site.dim_in, site.dim_out, bias)
    conv = site.conv
    return nn.Conv1d(
        site.dim_in,
        site.dim_out,
        conv.kernel,
        stride=conv.stride,
        padding=conv.padding,
        groups=conv.groups,
        bias=bias,
    )


def randomise(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))


@pytest.mark.parametrize("depthwise_rank", [0, 2])
@pytest.mark.parametrize("kind", sorted(SITES))
def test_change_of_the_output_equals_change_of_the_weight(kind: str, depthwise_rank: int) -> None:
    torch.manual_seed(0)
    site = SITES[kind]
    frozen = module_at(site).double()
    change = build(site, 3, bias=True, depthwise_rank=depthwise_rank).double()
    randomise(change)
    assert change.bias is not None
    x = torch.randn(2, 9, 6) if site.conv is None else torch.randn(2, 6, 9)
    x = x.double()
    added = frozen(x) + change(x, 0.7)
    with torch.no_grad():
        frozen.weight += 0.7 * change.weight()
        frozen.bias += 0.7 * change.bias  # type: ignore[operator]
    torch.testing.assert_close(added, frozen(x))


@pytest.mark.parametrize("depthwise_rank", [0, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", sorted(SITES))
def test_closed_form_counts_every_tensor(kind: str, bias: bool, depthwise_rank: int) -> None:
    change = build(SITES[kind], 3, bias, depthwise_rank)
    counted = sum(parameter.numel() for parameter in change.parameters())
    assert counted == num_parameters(SITES[kind], 3, bias, depthwise_rank)


def test_closed_form_of_a_linear_map_is_the_published_one() -> None:
    assert num_parameters(at("layer.0.attn.q", "q", 768, 768), 8) == 8 * (768 + 768)


@pytest.mark.parametrize("kind", sorted(SITES))
def test_change_starts_at_nothing_and_learns_at_once(kind: str) -> None:
    site = SITES[kind]
    change = build(site, 3)
    x = torch.randn(2, 9, 6) if site.conv is None else torch.randn(2, 6, 9)
    assert change(x).abs().max() == 0
    change(x).square().sum().backward()
    loss = (change(x) - 1).square().sum()
    loss.backward()
    up = change.kernel if isinstance(change, KernelDelta) else change.up
    assert up.grad is not None
    assert up.grad.abs().max() > 0


def test_down_starts_in_the_range_of_a_kaiming_uniform() -> None:
    change = LowRank(400, 10, 50)
    bound = 1 / 400**0.5
    assert 0.95 * bound < change.down.abs().max() <= bound


def test_factors_name_the_same_change_as_the_module() -> None:
    change = LowRank(6, 8, 3, STEM.conv, bias=True)
    randomise(change)
    delta = Factors(change.down, change.up, 0.5, change.bias).delta()
    torch.testing.assert_close(delta.weight, 0.5 * change.weight())
    assert delta.weight.shape == module_at(STEM).weight.shape
    assert delta.bias is not None
    torch.testing.assert_close(delta.bias, 0.5 * change.bias)  # type: ignore[operator]


def test_depthwise_factor_form_has_the_rank_asked_for() -> None:
    change = build(DEPTH, 3, depthwise_rank=2)
    randomise(change)
    assert torch.linalg.matrix_rank(change.weight().flatten(1)) == 2


def test_scaling_divides_by_rank_or_its_root() -> None:
    assert scaling(8.0, 4, rank_stabilised=False) == 2.0
    assert scaling(8.0, 4, rank_stabilised=True) == 4.0


def test_low_precision_stays_low() -> None:
    change = build(LINEAR, 2).bfloat16()
    assert change(torch.randn(1, 4, 6).bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert build(LINEAR, 2)(torch.randn(1, 4, 6)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("site", "limit"), [(LINEAR, 6), (STEM, 8), (POINT, 6), (DEPTH, 5)], ids=str
)
def test_rank_above_the_weights_is_refused(site: Site, limit: int) -> None:
    assert rank_limit(site) == limit
    depthwise = limit + 1 if is_depthwise(site) else 0
    with pytest.raises(ConfigError, match=rf"must be between 1 and {limit} .*, got {limit + 1}"):
        build(site, limit + 1, depthwise_rank=depthwise)


@pytest.mark.parametrize(
    ("site", "found"),
    [
        (Site("layer.0.ffn", "fc1", "fc2", 6, 6), "is a span from fc1 to fc2"),
        (at("layer.0.norm.ffn", "n", 6, 6, "LayerNorm"), "is a LayerNorm"),
        (at("stem.conv.0", "c", 6, 6, "Conv2d"), "is a Conv2d"),
        (
            Site("stem.conv.0", "c", "c", 6, 6, kind="Conv1d", conv=ConvShape(3, groups=2)),
            "is a convolution in 2 groups",
        ),
    ],
)
def test_site_without_such_a_weight_is_refused(site: Site, found: str) -> None:
    with pytest.raises(SiteError, match=rf"'{site.role}', which {found}.*Choose linear maps"):
        build(site, 2)


def test_bias_without_one_to_merge_into_is_refused() -> None:
    check_bias("layer.0.attn.q", nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"adapter\.bias=true .* 'layer\.0\.attn\.k', whose"):
        check_bias("layer.0.attn.k", nn.Linear(2, 2, bias=False))


def test_kernel_change_is_one_convolution_of_its_own() -> None:
    change = KernelDelta(6, ConvShape(5, groups=6))
    randomise(change)
    x = torch.randn(2, 6, 20)
    torch.testing.assert_close(change(x, 2.0), 2 * functional.conv1d(x, change.kernel, groups=6))
