from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from speechadapt.adapters.lowrank import KernelDelta, LowRank
from speechadapt.adapters.methods.lora import METHOD, LoraAdapter, LoraConfig
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

LINEAR = at("layer.0.attn.q", "x", 12, 20)
POINTWISE = at("layer.0.conv.pw1", "x", 12, 24, "Conv1d", ConvShape(1))
STRIDED = at("stem.conv.1", "x", 12, 16, "Conv1d", ConvShape(3, 2, 1))
DEPTHWISE = at("layer.0.conv.depthwise", "x", 12, 12, "Conv1d", ConvShape(7, groups=12))


def filled(site: Site, config: LoraConfig) -> LoraAdapter:
    torch.manual_seed(0)
    adapter = LoraAdapter(site, config, None)
    with torch.no_grad():
        for tensor in adapter.parameters():
            tensor.copy_(torch.randn(tensor.shape))
    return adapter


def test_the_change_is_alpha_over_rank_times_up_times_down():
    adapter = filled(LINEAR, LoraConfig(rank=3, alpha=6.0))
    x, y = torch.randn(2, 5, 12), torch.randn(2, 5, 20)
    change = adapter.change
    wanted = y + 2.0 * x @ change.down.T @ change.up.T
    torch.testing.assert_close(adapter.leave(x, y, Context()), wanted, rtol=1e-5, atol=1e-5)


def test_rank_stabilised_divides_by_the_root_of_the_rank():
    adapter = LoraAdapter(LINEAR, LoraConfig(rank=4, alpha=6.0, rank_stabilised=True), None)
    assert adapter.scale == pytest.approx(3.0)
    assert LoraAdapter(LINEAR, LoraConfig(rank=4, alpha=6.0), None).scale == pytest.approx(1.5)


def test_it_starts_at_zero_with_down_uniform_within_one_over_the_root_of_the_width():
    torch.manual_seed(0)
    site = at("layer.0.attn.q", "x", 400, 300)
    change = LoraAdapter(site, LoraConfig(rank=50), None).change
    assert not bool(change.up.any())
    most = 1 / math.sqrt(400)  # kaiming uniform with a = sqrt 5
    assert float(change.down.detach().abs().max()) == pytest.approx(most, rel=0.01)
    assert float(change.down.detach().std()) == pytest.approx(most / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("site", "frozen"),
    [
        (LINEAR, nn.Linear(12, 20)),
        (POINTWISE, nn.Conv1d(12, 24, 1)),
        (STRIDED, nn.Conv1d(12, 16, 3, stride=2, padding=1)),
        (DEPTHWISE, nn.Conv1d(12, 12, 7, groups=12)),
    ],
)
@pytest.mark.parametrize("depthwise_rank", [0, 2])
def test_merged_weights_give_the_same_output(site, frozen, bias, depthwise_rank):
    config = LoraConfig(rank=3, alpha=2.0, bias=bias, depthwise_rank=depthwise_rank)
    adapter = filled(site, config)
    x = torch.randn(2, 9, 12) if site is LINEAR else torch.randn(2, 12, 9)
    with torch.no_grad():
        wanted = adapter.leave(x, frozen(x), Context())
        delta = adapter.delta(frozen)
        weight = frozen.weight + delta.weight
        shift = frozen.bias if delta.bias is None else frozen.bias + delta.bias
        if site is LINEAR:
            merged = functional.linear(x, weight, shift)
        else:
            groups, stride, padding = frozen.groups, frozen.stride, frozen.padding
            merged = functional.conv1d(x, weight, shift, stride, padding, 1, groups)
    assert (delta.bias is not None) == bias
    torch.testing.assert_close(merged, wanted, rtol=1e-4, atol=1e-4)
    assert sum(one.numel() for one in adapter.parameters()) == METHOD.parameters(site, config)


def test_a_depthwise_kernel_changes_entry_by_entry_or_by_a_product():
    assert isinstance(LoraAdapter(DEPTHWISE, LoraConfig(), None).change, KernelDelta)
    product = LoraAdapter(DEPTHWISE, LoraConfig(depthwise_rank=2), None)
    assert isinstance(product.change, LowRank)
    assert METHOD.parameters(DEPTHWISE, LoraConfig()) == 12 * 7
    assert METHOD.parameters(DEPTHWISE, LoraConfig(depthwise_rank=2)) == 2 * (12 + 7)


def test_dropout_acts_on_the_input_in_training_alone():
    adapter = filled(LINEAR, LoraConfig(rank=3, dropout=0.5))
    x, y = torch.randn(2, 5, 12), torch.zeros(2, 5, 20)
    adapter.eval()
    still = adapter.leave(x, y, Context())
    assert torch.equal(adapter.leave(x, y, Context()), still)
    adapter.train()
    assert not torch.allclose(adapter.leave(x, y, Context()), still)


def test_the_sum_in_one_kernel_has_the_gradients_of_the_sum_in_steps():
    adapter = filled(LINEAR, LoraConfig(rank=3, alpha=5.0))
    x = torch.randn(2, 5, 12, requires_grad=True)
    y = torch.randn(2, 5, 20, requires_grad=True)
    tensors = [x, y, *adapter.parameters()]
    change = adapter.change
    steps = y + functional.linear(functional.linear(x, change.down), change.up) * adapter.scale
    fused = adapter.leave(x, y, Context())
    for one, other in zip(
        torch.autograd.grad(fused.square().sum(), tensors),
        torch.autograd.grad(steps.square().sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_what_it_cannot_change_is_refused():
    with pytest.raises(ConfigError, match=r"adapter\.rank must be between 1 and 12 .* got 13"):
        LoraAdapter(LINEAR, LoraConfig(rank=13), None)
    with pytest.raises(SiteError, match="is a LayerNorm"):
        LoraAdapter(at("layer.0.norm.attn", "x", 4, 4, "LayerNorm"), LoraConfig(), None)


def test_a_bias_is_refused_where_the_frozen_module_has_none():
    adapter = LoraAdapter(LINEAR, LoraConfig(bias=True), None)
    assert METHOD.prepare is not None
    METHOD.prepare(adapter, nn.Linear(12, 20))
    with pytest.raises(
        ConfigError, match=r"adapter\.bias=true was asked for at 'layer\.0\.attn\.q'"
    ):
        METHOD.prepare(adapter, nn.Linear(12, 20, bias=False))
