"""HD-PiSSA: blocks of components, the published update, processes and shares, what is left out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from speechadapt.adapters.methods.hd_pissa import METHOD, HdPissaAdapter, HdPissaConfig
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.sites import ConvShape, Site, at
from tests.processes import in_processes, learned

LINEAR = at("layer.0.ffn.up", "fc1", 12, 10)
CONV = Site("stem.conv.1", "c", "c", 12, 8, kind="Conv1d", conv=ConvShape(3, 2, 1))
DEPTH = Site(
    "layer.0.conv.depthwise", "d", "d", 12, 12, kind="Conv1d", conv=ConvShape(5, groups=12)
)
NOTHING = Context()
CONFIG = HdPissaConfig(rank=2, workers=2)


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


def prepared(site: Site, config: HdPissaConfig = CONFIG) -> tuple[HdPissaAdapter, nn.Module]:
    adapter, module = HdPissaAdapter(site, config, None), frozen_at(site)
    adapter.prepare(module)
    return adapter, module


def inputs(site: Site) -> Tensor:
    return torch.randn(4, 9, 12) if site.conv is None else torch.randn(4, 12, 9)


SITES = pytest.mark.parametrize("site", [LINEAR, CONV, DEPTH], ids=lambda site: site.role)


@SITES
def test_each_worker_gets_the_next_block_of_components(site: Site) -> None:
    adapter, module = prepared(site, HdPissaConfig(rank=2, workers=2, scale=2.0))
    weight = module.weight.flatten(1)
    values = torch.linalg.svdvals(weight)
    for worker in range(2):
        up = adapter.start_up[worker].flatten(1)
        down = adapter.start_down[worker].flatten(1)
        own = torch.linalg.svdvals(2.0 * up @ down)[:2]
        torch.testing.assert_close(own, values[2 * worker : 2 * worker + 2], rtol=1e-4, atol=1e-5)
    rest = weight - 2.0 * sum(
        adapter.start_up[worker].flatten(1) @ adapter.start_down[worker].flatten(1)
        for worker in range(2)
    )
    assert float(torch.linalg.matrix_norm(rest, 2)) == pytest.approx(float(values[4]), rel=1e-4)


@SITES
def test_the_change_is_one_product_of_rank_2rk_and_merges(site: Site) -> None:
    adapter, module = prepared(site, HdPissaConfig(rank=1, workers=2, scale=0.5))
    with torch.no_grad():
        adapter.up += torch.randn_like(adapter.up)
        adapter.down += torch.randn_like(adapter.down)
    factors = adapter.factors(module)
    assert factors.rank == 4
    x = inputs(site)
    y = module(x)
    delta = factors.delta().weight
    assert torch.linalg.matrix_rank(delta.flatten(1)) == 4
    with torch.no_grad():
        module.weight += delta
    shared = adapter.leave(x, y, NOTHING)
    torch.testing.assert_close(shared, module(x), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(adapter.leave(x, y, NOTHING), shared, rtol=1e-4, atol=1e-5)


def test_a_worker_learns_from_its_own_rows_alone() -> None:
    adapter, module = prepared(LINEAR)
    x = inputs(LINEAR)
    weight = torch.randn(4, 9, 10)
    (adapter.leave(x, module(x), NOTHING) * weight).sum().backward()
    for worker, rows in ((0, slice(0, 2)), (1, slice(2, 4))):
        gradient = torch.einsum("bto,bti->oi", weight[rows], x[rows])
        up, down = adapter.start_up[worker], adapter.start_down[worker]
        torch.testing.assert_close(adapter.down.grad[worker], up.T @ gradient, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(adapter.up.grad[worker], gradient @ down.T, rtol=1e-4, atol=1e-4)


class Published:
    """The published update of a dense weight, by each worker's own Adam on directions that stay."""

    def __init__(self, adapter: HdPissaAdapter, weight: Tensor, rate: float, second: bool) -> None:
        self.weight, self.rate, self.second = weight.clone(), rate, second
        self.downs, self.ups = adapter.start_down.clone(), adapter.start_up.clone()
        self.state: dict[tuple[int, str], list[Tensor]] = {}
        self.steps = 0
        self.left_out = torch.zeros_like(weight)

    def _adam(self, key: tuple[int, str], gradient: Tensor) -> Tensor:
        first, second = self.state.setdefault(
            key, [torch.zeros_like(gradient), torch.zeros_like(gradient)]
        )
        first.mul_(0.9).add_(gradient, alpha=0.1)
        second.mul_(0.999).add_(gradient.square(), alpha=0.001)
        corrected = first / (1 - 0.9**self.steps)
        root = (second / (1 - 0.999**self.steps)).sqrt() + 1e-8
        return self.rate * corrected / root

    def step(self, x: Tensor, target: Tensor, bias: Tensor) -> None:
        self.steps += 1
        change = torch.zeros_like(self.weight)
        for worker, rows in ((0, slice(0, 2)), (1, slice(2, 4))):
            error = x[rows] @ self.weight.T + bias - target[rows]
            gradient = torch.einsum("bto,bti->oi", 2 * error / error.numel(), x[rows])
            down, up = self.downs[worker], self.ups[worker]
            by_down = self._adam((worker, "down"), up.T @ gradient)
            by_up = self._adam((worker, "up"), gradient @ down.T)
            change += by_up @ down + up @ by_down
            self.left_out += by_up @ by_down
            if self.second:
                change -= by_up @ by_down
        self.weight -= change


def _trained(rate: float, second: bool) -> tuple[HdPissaAdapter, nn.Module, Published]:
    adapter, module = prepared(LINEAR)
    x, target = inputs(LINEAR), torch.randn(4, 9, 10)
    published = Published(adapter, module.weight, rate, second)
    optimiser = torch.optim.Adam(adapter.parameters(), lr=rate)
    for step in range(6):
        optimiser.zero_grad()
        (adapter.leave(x, module(x), NOTHING) - target).square().mean().backward()
        optimiser.step()
        METHOD.after_step([adapter], step + 1)
        published.step(x, target, module.bias)
    return adapter, module, published


def test_training_is_the_published_update_without_its_second_order_term() -> None:
    adapter, module, published = _trained(0.01, second=False)
    change = published.weight - module.weight
    torch.testing.assert_close(adapter.delta(module).weight, change, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rate", [1e-3, 1e-1])
def test_the_error_it_reports_bounds_what_the_published_update_adds(rate: float) -> None:
    adapter, module, published = _trained(rate, second=False)
    change = published.weight - module.weight
    true = float(published.left_out.norm() / change.norm())
    reported = METHOD.figures([adapter])["second_order_error"]
    assert true <= reported <= 3 * true
    assert reported == pytest.approx(adapter.second_order_error())
    _, _, whole = _trained(rate, second=True)
    stored = module.weight + adapter.delta(module).weight.detach()
    assert float((whole.weight - stored).norm() / change.norm()) <= 2 * reported


def test_before_training_nothing_is_left_out() -> None:
    assert prepared(LINEAR)[0].second_order_error() == 0.0


def _apart_and_together(model: Path, rank: int) -> list[dict[str, Tensor]]:
    """Train alone but for what `after_step` tells, and with gradients averaged at every step."""
    return [learned(model, "hd_pissa", CONFIG, 3, rank, way) for way in (False, True)]


def test_processes_learn_what_shares_of_a_batch_learn(tiny_folder, tmp_path: Path) -> None:
    model = tiny_folder("whisper")
    alone = learned(model, "hd_pissa", CONFIG, 3, None)
    both = in_processes(partial(_apart_and_together, model), tmp_path)
    assert any(float(tensor.abs().max()) > 0.01 for key, tensor in alone.items() if ":up" in key)
    for found in (one for ways in both for one in ways):
        for key, tensor in alone.items():
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-5, msg=key)


def test_more_components_than_the_weight_has_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"adapter\.rank x adapter\.workers must be between 1 and 10 .* got 12"
    ):
        HdPissaAdapter(LINEAR, HdPissaConfig(rank=3, workers=4), None)
