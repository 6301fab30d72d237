from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.generated import Generated, places_of
from speechadapt.core.errors import SiteError
from speechadapt.encoders.sites import Site


def test_every_row_has_a_bottleneck_of_its_own():
    torch.manual_seed(0)
    made = Generated(
        torch.randn(2, 3, 4), torch.randn(2, 3), torch.randn(2, 4, 3), torch.randn(2, 4)
    )
    states = torch.randn(2, 5, 4)
    found = made(states, "relu")
    for row in range(2):
        narrow = (states[row] @ made.down[row].T + made.bias[row]).relu()
        wanted = narrow @ made.up[row].T + made.shift[row]
        torch.testing.assert_close(found[row], wanted, rtol=1e-5, atol=1e-5)


def test_sites_are_numbered_by_layer_and_position():
    roles = ("layer.3.attn", "layer.3.ffn", "layer.7.attn", "layer.7.ffn")
    places = places_of([Site(role, "a", "b", 8, 8) for role in roles], "hyper")
    assert (places.layers, places.positions, places.width) == (2, ("attn", "ffn"), 8)
    assert places.table["layer.7.attn"] == (1, 0)


@pytest.mark.parametrize(
    "odd", [Site("encoder", "a", "b", 8, 8), Site("layer.0.attn.q", "a", "a", 8, 4)]
)
def test_sites_of_another_width_or_outside_the_layers_are_named(odd):
    with pytest.raises(SiteError, match=f"'hyper' generates one size .* '{odd.role}' is in none"):
        places_of([Site("layer.0.attn", "a", "b", 8, 8), odd], "hyper")
