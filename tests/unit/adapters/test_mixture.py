"""Mixtures against loops over their parts, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.bank import Bank
from speechadapt.adapters.composed import compose, weights_noted
from speechadapt.adapters.handle import attachment
from speechadapt.adapters.methods.houlsby import HoulsbyAdapter, HoulsbyConfig
from speechadapt.adapters.methods.linear_bottleneck import METHOD as AROUND
from speechadapt.adapters.methods.lora import LoraAdapter, LoraConfig
from speechadapt.adapters.methods.parallel import ParallelAdapter, ParallelConfig
from speechadapt.adapters.mixture import Meter, Mixture, SitePart
from speechadapt.adapters.spec import Adapter, Context
from speechadapt.adapters.weighers import Fixed
from speechadapt.core.errors import ConfigError, ShapeError
from speechadapt.encoders.sites import ConvShape, Site, at

SITE = Site("layer.0.ffn", "a", "b", 12, 12, tap="n")
X, Y = torch.randn(2, 5, 12), torch.randn(2, 5, 12)
WEIGHTS = (0.5, 0.2, 0.3)


def filled(adapter: Adapter, seed: int) -> Adapter:
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in adapter.parameters():
            tensor.copy_(torch.randn(tensor.shape))
    return adapter.requires_grad_(False)


def parallel(seed: int, **settings: object) -> Adapter:
    config = ParallelConfig(**{"bottleneck": 3, "input": "normed", **settings})
    return filled(ParallelAdapter(SITE, config), seed)


def houlsby(seed: int) -> Adapter:
    return filled(HoulsbyAdapter(SITE, HoulsbyConfig(bottleneck=2)), seed)


def mixture(*parts: tuple[Adapter, ...], site: Site = SITE, weights=WEIGHTS) -> Mixture:
    named = [SitePart(chr(97 + number), part) for number, part in enumerate(parts)]
    return Mixture(site, named, Fixed(weights))


def looped(parts, x: Tensor = X, y: Tensor = Y, weights=WEIGHTS) -> Tensor:
    total = y.clone()
    for weight, part in zip(weights, parts, strict=True):
        after = y
        for adapter in part:
            after = adapter.leave(x, after, Context())
        total = total + weight * (after - y)
    return total


@pytest.mark.parametrize(
    "parts",
    [
        [(parallel(1),), (parallel(2),), (parallel(3),)],
        [(parallel(1),), (houlsby(2),), (parallel(3, activation="gelu"),)],
        [(houlsby(1), parallel(2)), (parallel(3),), ()],
    ],
    ids=["one kind", "unlike kinds", "a stack and nothing"],
)
def test_a_mixture_equals_a_loop_over_its_parts(parts):
    found = mixture(*parts).leave(X, Y, Context())
    torch.testing.assert_close(found, looped(parts), rtol=1e-5, atol=1e-4)


def test_parts_of_one_kind_run_as_one_product(monkeypatch):
    calls = []
    monkeypatch.setattr(ParallelAdapter, "leave", lambda *args: calls.append("alone"))
    inner = Bank.inner
    monkeypatch.setattr(Bank, "inner", lambda *args: calls.append("bank") or inner(*args))
    mixture((parallel(1),), (parallel(2),), (parallel(3),)).leave(X, Y, Context())
    assert calls == ["bank"]


def test_the_product_is_made_anew_after_a_part_was_trained_or_filled():
    parts = [(parallel(1),), (parallel(2),), (parallel(3),)]
    mixed = mixture(*parts)
    with torch.inference_mode():
        mixed.leave(X, Y, Context())
    before = mixed.leave(X, Y, Context())
    assert torch.equal(mixed.leave(X, Y, Context()), before)
    with torch.no_grad():
        parts[1][0].bottleneck.up.weight.mul_(2.0)
    after = mixed.leave(X, Y, Context())
    torch.testing.assert_close(after, looped(parts), rtol=1e-5, atol=1e-4)
    assert not torch.allclose(after, before, atol=1e-3)


def test_parts_that_train_get_gradients_and_stay_up_to_date():
    parts = [(parallel(1),), (parallel(2),), (parallel(3),)]
    mixed = mixture(*parts)
    for (adapter,) in parts:
        adapter.requires_grad_(True)
    for _ in range(2):
        mixed.leave(X, Y, Context()).square().sum().backward()
        for (adapter,) in parts:
            for tensor in adapter.parameters():
                assert tensor.grad is not None
                with torch.no_grad():
                    tensor -= 0.1 * tensor.grad / tensor.grad.norm()
    found = mixed.leave(X, Y, Context())
    torch.testing.assert_close(found, looped(parts), rtol=1e-4, atol=1e-3)


def test_at_a_convolution_channels_come_first():
    site = at("layer.0.conv.pw1", "x", 4, 6, "Conv1d", ConvShape(1))
    parts = [(filled(LoraAdapter(site, LoraConfig(rank=2)), seed),) for seed in (1, 2, 3)]
    x, y = torch.randn(2, 4, 9), torch.randn(2, 6, 9)
    found = mixture(*parts, site=site).leave(x, y, Context())
    torch.testing.assert_close(found, looped(parts, x, y), rtol=1e-5, atol=1e-5)


def test_its_own_tensors_are_the_weighers_alone():
    mixed = mixture((parallel(1),), (parallel(2),), (parallel(3),))
    assert list(mixed.parameters()) == []
    assert mixed.state_dict() == {}


def test_parts_that_read_different_things_are_refused():
    with pytest.raises(ConfigError, match=r"'a' and 'b' were to be mixed, .* residual stream"):
        mixture((parallel(1, input="residual"),), (parallel(2),), weights=(0.5, 0.5))
    # one that reads the output alone goes with any
    assert mixture((parallel(1, input="residual"),), (houlsby(2),), weights=(0.5, 0.5)).taps


def test_a_part_that_changes_what_goes_in_is_refused():
    site = at("layer.0.attn.q", "q", 12, 12)
    adapter = AROUND.adapter(site, AROUND.config(bottleneck=2, placement="before"), None)
    with pytest.raises(ConfigError, match=r"'b' .* changes what goes in"):
        mixture((houlsby(1),), (adapter,), site=site, weights=(0.5, 0.5))


class Wider(Adapter):
    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        return torch.cat([y, y], dim=-1)


def test_a_part_that_changes_the_shape_is_refused():
    mixed = mixture((houlsby(1),), (Wider(),), weights=(0.5, 0.5))
    with pytest.raises(ShapeError, match=r"'b' was to be mixed .* \[2, 5, 24\] of \[2, 5, 12\]"):
        mixed.leave(X, Y, Context())


def test_a_meter_averages_over_valid_frames():
    meter = Meter()
    weights = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [9.0, 9.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    meter.note("layer.0.ffn", weights, 2, mask)
    assert meter.rows().tolist() == [[0.5, 0.5], [0.5, 0.5]]
    meter.note("layer.1.ffn", torch.tensor([1.0, 0.0]), 2, mask)
    assert meter.rows().tolist() == [[0.75, 0.25], [0.75, 0.25]]


def test_weights_are_noted_for_every_site_and_row(load, trained, frames):
    encoder = load()
    trained(encoder)
    names = compose(encoder, "fuse(a, b, c, method=gated)")
    handle = attachment(encoder, names[0])
    with weights_noted(handle) as meter:
        frames(encoder, names)
    assert list(meter.sites) == [site.role for site in handle.sites]
    torch.testing.assert_close(meter.rows(), torch.full((3, 3), 1 / 3))
    before = dict(meter.sites)
    frames(encoder, "a")
    assert meter.sites == before
    with (
        pytest.raises(ShapeError, match=r"'a' .* is a single adapter"),
        weights_noted(attachment(encoder, "a")),
    ):
        pass
