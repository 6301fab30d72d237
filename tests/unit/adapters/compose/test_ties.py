from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment
from speechadapt.core.errors import ConfigError


def delta(encoder, name):
    adapter = attachment(encoder, name).module.adapters()[0]
    return (adapter.scale * adapter.change.weight()).detach()


def test_one_site_is_the_formula(load, trained):
    encoder = load()
    trained(encoder, "lora", names="ab", roles=["layer.0.attn.q"])
    # a change of this shape trimmed by entries has full rank
    compose(encoder, "ties(a, b, density=0.25, scale=2, rank=32)", name="merged")
    first, second = delta(encoder, "a"), delta(encoder, "b")
    kept = []
    for change in (first, second):
        least = change.abs().flatten().sort(descending=True).values[32 * 32 // 4 - 1]
        kept.append(change * (change.abs() >= least))
    sign = torch.sign(kept[0] + kept[1])
    agree = torch.stack([one * (torch.sign(one) == sign) for one in kept])
    wanted = 2 * agree.sum(0) / (agree != 0).sum(0).clamp(min=1)
    torch.testing.assert_close(delta(encoder, "merged"), wanted, rtol=0, atol=1e-4)


def test_a_density_above_one_is_refused(load, trained):
    encoder = load()
    trained(encoder, "lora", names="ab")
    with pytest.raises(ConfigError, match=r"density must be between 0 and 1, got 2"):
        compose(encoder, "ties(a, b, density=2)")
