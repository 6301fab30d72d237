from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment


def delta(encoder, name):
    adapter = attachment(encoder, name).module.adapters()[0]
    return (adapter.scale * adapter.change.weight()).detach()


@pytest.fixture
def encoder(load, trained):
    encoder = load()
    trained(encoder, "lora", names="ab", roles=["layer.0.attn.q"])
    return encoder


def test_entries_are_dropped_and_the_others_scaled_up(encoder):
    with torch.no_grad():
        attachment(encoder, "b").module.adapters()[0].change.up.zero_()
    compose(encoder, "dare(a, b, density=0.25, rank=32)", name="merged")
    change, merged = delta(encoder, "a"), delta(encoder, "merged")
    kept = merged.abs() > 1e-4
    assert 0.15 < float(kept.float().mean()) < 0.35
    # half the weight, four times the size
    torch.testing.assert_close(merged[kept], 2 * change[kept], rtol=1e-3, atol=2e-4)


def test_a_seed_gives_the_same_again_and_another_does_not(encoder):
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        compose(encoder, f"dare(a, b, seed={seed})", name=name)
    assert torch.equal(delta(encoder, "one"), delta(encoder, "again"))
    assert not torch.allclose(delta(encoder, "one"), delta(encoder, "two"), atol=1e-3)


def test_keeping_all_is_the_average(encoder):
    compose(encoder, "dare(a, b, density=1)", name="merged")
    wanted = (delta(encoder, "a") + delta(encoder, "b")) / 2
    torch.testing.assert_close(delta(encoder, "merged"), wanted, rtol=0, atol=1e-5)
