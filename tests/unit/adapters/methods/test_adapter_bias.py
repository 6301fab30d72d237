"""The frame-wise shift: its formula, its exact merge, and one amount shared by all sites."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from speechadapt.adapters.attach import attach, remove
from speechadapt.adapters.merge import merge
from speechadapt.adapters.methods.adapter_bias import (
    METHOD,
    AdapterBiasAdapter,
    AdapterBiasConfig,
    shared,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import SiteError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.sites import ConvShape, Site, at

SITE = at("layer.0.ffn.down", "fc2", 12, 8)
NEXT = at("layer.1.ffn.down", "fc2", 12, 8)
CONTEXT = Context()


def _moved(adapter: AdapterBiasAdapter) -> AdapterBiasAdapter:
    with torch.no_grad():
        adapter.direction.normal_()
    return adapter


def test_a_hand_computed_frame() -> None:
    adapter = AdapterBiasAdapter(at("layer.0.ffn.down", "fc2", 2, 3), AdapterBiasConfig())
    with torch.no_grad():
        adapter.amount.weight.copy_(torch.tensor([[2.0, -1.0]]))
        adapter.amount.bias.fill_(0.5)
        adapter.direction.copy_(torch.tensor([1.0, 0.0, -2.0]))
    x, y = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), torch.ones(1, 2, 3)
    # 6 - 4 + 0.5 = 2.5 along (1, 0, -2); the silent frame moves by 0.5 of it
    expected = torch.tensor([[[3.5, 1.0, -4.0], [1.5, 1.0, 0.0]]])
    torch.testing.assert_close(adapter.leave(x, y, CONTEXT), expected)


def test_it_starts_as_the_identity_with_the_amount_of_a_fresh_linear_map() -> None:
    wide = at("layer.0.ffn.down", "fc2", 3072, 8)
    adapter = AdapterBiasAdapter(wide, AdapterBiasConfig())
    y = torch.randn(2, 5, 8)
    assert torch.equal(adapter.leave(torch.randn(2, 5, 3072), y, CONTEXT), y)
    bound = 1 / math.sqrt(3072)
    assert adapter.amount.weight.abs().max() <= bound
    assert adapter.amount.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_merging_is_exact() -> None:
    adapter, module = _moved(AdapterBiasAdapter(SITE, AdapterBiasConfig())), nn.Linear(12, 8)
    assert METHOD.weight_delta is not None
    delta = METHOD.weight_delta(adapter, module)
    assert delta.bias is not None
    x = torch.randn(2, 5, 12)
    merged = nn.functional.linear(x, module.weight + delta.weight, module.bias + delta.bias)
    torch.testing.assert_close(merged, adapter.leave(x, module(x), CONTEXT))


def test_it_is_a_product_of_rank_one_and_a_bias() -> None:
    adapter = _moved(AdapterBiasAdapter(SITE, AdapterBiasConfig()))
    factors = adapter.factors(nn.Linear(12, 8))
    assert factors.rank == 1
    assert torch.equal(factors.down, adapter.amount.weight)
    assert torch.equal(factors.up[:, 0], adapter.direction)
    assert factors.bias is not None
    torch.testing.assert_close(factors.bias, adapter.amount.bias * adapter.direction)


def test_sites_that_share_have_one_amount_and_directions_of_their_own() -> None:
    config = AdapterBiasConfig(share=True)
    amount = shared([SITE, NEXT], config)
    first, second = (AdapterBiasAdapter(site, config, amount) for site in (SITE, NEXT))
    assert first.amount is second.amount is amount
    assert first.direction is not second.direction


@pytest.mark.parametrize("share", [True, False])
def test_the_closed_forms_count_every_parameter(share: bool) -> None:
    config = AdapterBiasConfig(share=share)
    sites = [SITE, NEXT]
    amount = shared(sites, config)
    adapters = nn.ModuleList([AdapterBiasAdapter(site, config, amount) for site in sites])
    counted = {id(one): one.numel() for one in [*adapters.parameters(), *amount.parameters()]}
    assert METHOD.shared_parameters is not None
    own = sum(METHOD.parameters(site, config) for site in sites)
    assert own + METHOD.shared_parameters(sites, config) == sum(counted.values())


def test_whisper_small_costs_46_thousand_parameters() -> None:
    site = at("layer.0.ffn.down", "fc2", 3072, 768)
    assert 12 * METHOD.parameters(site, AdapterBiasConfig()) == 46_092


def test_sites_of_several_widths_cannot_share() -> None:
    with pytest.raises(SiteError, match=r"sites that read \[8, 12\] values"):
        shared([SITE, at("layer.0.attn.q", "q", 8, 8)], AdapterBiasConfig(share=True))


@pytest.mark.parametrize(
    "site",
    [
        at("layer.0.conv.pw2", "pw2", 8, 8, "Conv1d", ConvShape(1)),
        Site("layer.0.attn", "self_attn", "self_attn.out_proj", 8, 8),
    ],
)
def test_what_is_no_linear_map_is_refused(site: Site) -> None:
    with pytest.raises(SiteError, match=site.role.replace(".", r"\.")):
        AdapterBiasAdapter(site, AdapterBiasConfig())


def test_on_an_encoder_the_shared_amount_is_one_tensor_that_merges_everywhere(
    tiny_folder, signal
) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    handle = attach(encoder, "adapter_bias", name="shift", config={"share": True})
    assert handle.num_parameters() == handle.expected_parameters() == 4 * 32 + 48 + 1
    assert {key for key in handle.module.tensors() if "amount" in key} == set()
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.normal_(std=0.3)
        attached, _ = encoder.encode([signal(12000)])
        merge(encoder, "shift")
        merged, _ = encoder.encode([signal(12000)])
        remove(encoder, "shift")
        base, _ = encoder.encode([signal(12000)])
    torch.testing.assert_close(merged, attached, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(base, attached, atol=1e-2)
