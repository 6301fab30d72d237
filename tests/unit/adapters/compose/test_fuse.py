"""The fusion against AdapterFusion's formula at one site, written out."""

from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment
from speechadapt.adapters.spec import Context


def at_first_site(load, trained, text):
    encoder = load()
    handles = trained(encoder)
    compose(encoder, text, name="fused")
    handle = attachment(encoder, "fused")
    return handle, handle.module.adapters()[0], [one.module.adapters()[0] for one in handles]


def test_attention_over_three_adapters(load, trained):
    handle, fused, parts = at_first_site(load, trained, "fuse(a, b, c, key_width=4, value=full)")
    weigher = fused.weigher
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in weigher.parameters():
            tensor.copy_(torch.randn(tensor.shape))
    x, y = 5 * torch.randn(2, 6, 32), torch.randn(2, 6, 32)
    added = [one.leave(x, y, Context()) - y for one in parts]
    heard = torch.nn.functional.layer_norm(x, (32,))
    query = heard @ weigher.query.weight.T + weigher.query.bias
    scores = torch.stack([(query * (z @ weigher.key.T)).sum(-1) / 2.0 for z in added], dim=-1)
    weights = scores.softmax(-1)
    total = sum(weights[..., k : k + 1] * z for k, z in enumerate(added))
    found = fused.leave(x, y, Context())
    torch.testing.assert_close(found, y + total @ weigher.value.T, rtol=1e-4, atol=1e-4)
    assert handle.penalty() is None


def test_the_mean_has_nothing_to_train(load, trained):
    handle, fused, parts = at_first_site(load, trained, "fuse(a, b, c, method=mean)")
    assert handle.num_parameters() == 0
    x, y = torch.randn(2, 6, 32), torch.randn(2, 6, 32)
    mean = sum(one.leave(x, y, Context()) for one in parts) / 3
    torch.testing.assert_close(fused.leave(x, y, Context()), mean, rtol=1e-5, atol=1e-5)


def test_the_penalty_is_the_distance_of_all_values(load, trained):
    text = "fuse(a, b, c, value=full, value_penalty=0.1)"
    handle, _, _ = at_first_site(load, trained, text)
    assert float(handle.penalty().detach()) == 0.0
    with torch.no_grad():
        for one in handle.module.adapters():
            one.weigher.value[0, 1] = 2.0
    assert float(handle.penalty().detach()) == pytest.approx(0.1 * 4 * len(handle.sites))
