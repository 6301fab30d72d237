from __future__ import annotations

import pytest
import torch
from torch import nn

from speechadapt.adapters.methods.hydra_heads import METHOD, HydraHeadsAdapter, HydraHeadsConfig
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

LINEAR = at("layer.0.ffn.down", "fc2", 12, 10)
POINT = Site("layer.0.conv.pw2", "p", "p", 12, 10, kind="Conv1d", conv=ConvShape(1))
STEM = Site("stem.conv.1", "c", "c", 12, 10, kind="Conv1d", conv=ConvShape(3, 2, 1))
DEPTH = Site(
    "layer.0.conv.depthwise", "d", "d", 12, 12, kind="Conv1d", conv=ConvShape(5, groups=12)
)
NOTHING = Context()


def pair(site: Site, frozen_bias: bool, **settings: object) -> tuple[HydraHeadsAdapter, nn.Module]:
    torch.manual_seed(0)
    config = HydraHeadsConfig(parallel_rank=3, sequential_rank=2, scale=0.5, **settings)  # type: ignore[arg-type]
    module: nn.Linear | nn.Conv1d
    if site.conv is None:
        module = nn.Linear(site.dim_in, site.dim_out, frozen_bias)
    else:
        shape = site.conv
        module = nn.Conv1d(
            12, 10, shape.kernel, stride=shape.stride, padding=shape.padding, bias=frozen_bias
        )
    adapter = HydraHeadsAdapter(site, config, None).double()
    return adapter, module.double().requires_grad_(False)


def randomise(adapter: nn.Module) -> None:
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn_like(parameter))


def inputs(site: Site) -> torch.Tensor:
    shape = (2, 9, 12) if site.conv is None else (2, 12, 9)
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("frozen_bias", "bias"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("site", [LINEAR, POINT, STEM], ids=lambda site: site.role)
def test_merging_is_exact_with_every_bias(site: Site, frozen_bias: bool, bias: bool) -> None:
    adapter, module = pair(site, frozen_bias, bias=bias)
    randomise(adapter)
    x = inputs(site)
    wanted = adapter.leave(x, module(x), NOTHING)
    assert METHOD.weight_delta is not None
    delta = METHOD.weight_delta(adapter, module)
    assert (delta.bias is not None) == frozen_bias
    with torch.no_grad():
        module.weight += delta.weight  # type: ignore[operator]
        if delta.bias is not None:
            module.bias += delta.bias  # type: ignore[operator]
    torch.testing.assert_close(module(x), wanted, rtol=1e-12, atol=1e-12)


def test_output_is_the_published_formula() -> None:
    adapter, module = pair(LINEAR, True, bias=True)
    randomise(adapter)
    a, b, c, d = (
        adapter.parallel.down,
        adapter.parallel.up,
        adapter.sequential.down,
        adapter.sequential.up,
    )
    x = inputs(LINEAR)
    y = module(x)
    wanted = y + 0.5 * (x @ a.T @ b.T + adapter.parallel.bias) + 0.5 * y @ c.T @ d.T
    torch.testing.assert_close(adapter.leave(x, y, NOTHING), wanted)


def test_sequential_head_sees_the_output_alone() -> None:
    adapter, module = pair(LINEAR, True)
    randomise(adapter)
    with torch.no_grad():
        adapter.parallel.up.zero_()
    y = module(inputs(LINEAR))
    first = adapter.leave(inputs(LINEAR), y, NOTHING)
    assert torch.equal(first, adapter.leave(inputs(LINEAR), y, NOTHING))
    assert not torch.equal(first, y)


def test_untrained_heads_change_nothing() -> None:
    adapter, module = pair(LINEAR, True)
    x = inputs(LINEAR)
    assert torch.equal(adapter.leave(x, module(x), NOTHING), module(x))


def test_product_has_the_ranks_of_both_heads() -> None:
    adapter, module = pair(LINEAR, True)
    randomise(adapter)
    factors = adapter.factors(module)
    assert factors.rank == 5
    assert torch.linalg.matrix_rank(factors.delta().weight) == 5


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("site", [LINEAR, POINT, STEM], ids=lambda site: site.role)
def test_closed_form_counts_every_tensor(site: Site, bias: bool) -> None:
    config = HydraHeadsConfig(parallel_rank=3, sequential_rank=2, bias=bias)
    adapter = HydraHeadsAdapter(site, config, None)
    assert sum(one.numel() for one in adapter.parameters()) == METHOD.parameters(site, config)


def test_depthwise_kernel_is_refused() -> None:
    with pytest.raises(SiteError, match=r"'layer\.0\.conv\.depthwise', a depthwise .* conv\.pw1"):
        HydraHeadsAdapter(DEPTH, HydraHeadsConfig(2, 2), None)


def test_sequential_rank_above_the_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.sequential_rank must be .* 10 .*, got 11"):
        HydraHeadsAdapter(LINEAR, HydraHeadsConfig(2, 11), None)


def test_trained_bias_needs_a_frozen_one() -> None:
    adapter, module = pair(LINEAR, False, bias=True)
    assert METHOD.prepare is not None
    with pytest.raises(ConfigError, match=r"adapter\.bias=true was asked for at"):
        METHOD.prepare(adapter, module)
