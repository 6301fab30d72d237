from __future__ import annotations

import pytest
import torch
from torch import nn

from speechadapt.adapters.methods.pissa import METHOD, PissaAdapter, PissaConfig
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.sites import ConvShape, Site, at

LINEAR = at("layer.0.ffn.up", "fc1", 12, 10)
CONV = Site("stem.conv.1", "c", "c", 12, 8, kind="Conv1d", conv=ConvShape(3, 2, 1))
DEPTH = Site(
    "layer.0.conv.depthwise", "d", "d", 12, 12, kind="Conv1d", conv=ConvShape(5, groups=12)
)
NOTHING = Context()


def frozen_at(site: Site) -> nn.Linear | nn.Conv1d:
    torch.manual_seed(0)
    if site.conv is None:
        return nn.Linear(site.dim_in, site.dim_out).requires_grad_(False)
    shape = site.conv
    module = nn.Conv1d(
        site.dim_in,
        site.dim_out,
        shape.kernel,
        stride=shape.stride,
        padding=shape.padding,
        groups=shape.groups,
    )
    return module.requires_grad_(False)


def prepared(site: Site, **settings: float) -> tuple[PissaAdapter, nn.Linear | nn.Conv1d]:
    config = PissaConfig(**{"rank": 3, **settings})  # type: ignore[arg-type]
    adapter, module = PissaAdapter(site, config, None), frozen_at(site)
    assert METHOD.prepare is not None
    METHOD.prepare(adapter, module)
    return adapter, module


def inputs(site: Site) -> torch.Tensor:
    return torch.randn(2, 9, 12) if site.conv is None else torch.randn(2, 12, 9)


@pytest.mark.parametrize("site", [LINEAR, CONV, DEPTH], ids=lambda site: site.role)
def test_start_is_the_principal_part_of_the_weight(site: Site) -> None:
    adapter, module = prepared(site, scale=2.0)
    product = adapter.start_up.flatten(1) @ adapter.start_down.flatten(1)
    weight = module.weight.flatten(1)
    rest = torch.linalg.svdvals(weight - 2.0 * product)
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(rest[: len(values) - 3], values[3:], rtol=1e-4, atol=1e-6)
    # both factors carry the same share of each component
    norms = adapter.start_up.flatten(1).norm(dim=0)
    torch.testing.assert_close(norms, adapter.start_down.flatten(1).norm(dim=1))


@pytest.mark.parametrize("site", [LINEAR, CONV, DEPTH], ids=lambda site: site.role)
def test_untrained_adapter_changes_nothing_and_leaves_the_weight_alone(site: Site) -> None:
    before = frozen_at(site).weight.clone()
    adapter, module = prepared(site)
    x = inputs(site)
    y = module(x)
    assert torch.equal(adapter.leave(x, y, NOTHING), y)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("site", [LINEAR, CONV, DEPTH], ids=lambda site: site.role)
def test_trained_adapter_equals_factors_on_the_residual_weight(site: Site, scale: float) -> None:
    """The published form: y = (W - s B0 A0) x + s B A x, with B and A trained."""
    adapter, module = prepared(site, scale=scale)
    with torch.no_grad():
        adapter.up += 0.1 * torch.randn_like(adapter.up)
        adapter.down += 0.1 * torch.randn_like(adapter.down)
        up, down = adapter.start_up + adapter.up, adapter.start_down + adapter.down
        start = adapter.start_up.flatten(1) @ adapter.start_down.flatten(1)
        trained = up.flatten(1) @ down.flatten(1)
        published = frozen_at(site)
        published.weight += scale * (trained - start).reshape(published.weight.shape)
    x = inputs(site)
    torch.testing.assert_close(
        adapter.leave(x, module(x), NOTHING), published(x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("site", [LINEAR, CONV], ids=lambda site: site.role)
def test_exported_product_has_twice_the_rank_and_the_same_effect(site: Site) -> None:
    adapter, module = prepared(site, scale=2.0)
    with torch.no_grad():
        adapter.up += torch.randn_like(adapter.up)
        adapter.down += torch.randn_like(adapter.down)
    factors = adapter.factors(module)
    assert factors.rank == 6
    delta = factors.delta().weight
    assert torch.linalg.matrix_rank(delta.flatten(1)) == 6
    x = inputs(site)
    y = module(x)
    with torch.no_grad():
        module.weight += delta
    torch.testing.assert_close(adapter.leave(x, y, NOTHING), module(x), rtol=1e-4, atol=1e-4)


def test_first_gradients_are_those_of_the_published_factors() -> None:
    adapter, module = prepared(LINEAR, scale=0.5)
    x = inputs(LINEAR)
    adapter.leave(x, module(x), NOTHING).square().sum().backward()
    up = adapter.start_up.clone().requires_grad_()
    down = adapter.start_down.clone().requires_grad_()
    with torch.no_grad():
        module.weight -= 0.5 * up @ down
    (module(x) + 0.5 * x @ down.T @ up.T).square().sum().backward()
    torch.testing.assert_close(adapter.up.grad, up.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(adapter.down.grad, down.grad, rtol=1e-4, atol=1e-4)


def test_randomised_decomposition_is_near_the_exact_one_and_repeatable() -> None:
    exact, _ = prepared(LINEAR)
    near, module = prepared(LINEAR, iterations=8)
    torch.manual_seed(7)
    again = PissaAdapter(LINEAR, PissaConfig(rank=3, iterations=8), None)
    again.prepare(module)
    products = [one.start_up @ one.start_down for one in (exact, near)]
    assert (products[0] - products[1]).norm() < 0.05 * products[0].norm()
    assert torch.equal(near.start_up, again.start_up)


def test_rank_above_the_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.rank must be between 1 and 10 .* got 11"):
        PissaAdapter(LINEAR, PissaConfig(rank=11), None)
