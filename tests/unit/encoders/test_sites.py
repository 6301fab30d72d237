from __future__ import annotations

import pytest

from speechadapt.core.errors import SiteError
from speechadapt.encoders.sites import Site, at, by_role, select, with_heads

CONFORMER = [
    at("stem.conv.0", "conv", 80, 32, "Conv1d"),
    at("layer.0.ffn1", "l0.ffn1", 32, 32),
    at("layer.0.ffn1.up", "l0.ffn1.up", 32, 48),
    at("layer.0.attn.q", "l0.q", 32, 32),
    at("layer.0.ffn2", "l0.ffn2", 32, 32),
    at("layer.1.ffn1", "l1.ffn1", 32, 32),
    at("layer.1.attn.q", "l1.q", 32, 32),
    at("encoder", "norm", 32, 32, "LayerNorm"),
]


def roles(*patterns: str) -> list[str]:
    return [site.role for site in select(CONFORMER, patterns)]


def test_a_role_without_its_layer_means_every_layer():
    assert roles("attn.q") == ["layer.0.attn.q", "layer.1.attn.q"]


def test_one_layer_can_be_named():
    assert roles("layer.1.attn.q") == ["layer.1.attn.q"]


def test_ffn_means_both_halves_on_a_conformer():
    assert roles("ffn") == ["layer.0.ffn1", "layer.0.ffn2", "layer.1.ffn1"]
    assert roles("ffn.up") == ["layer.0.ffn1.up"]


def test_stars_stand_for_one_part():
    assert roles("layer.0.*") == ["layer.0.ffn1", "layer.0.ffn2"]


def test_the_encoders_order_is_kept_and_doubles_fall_away():
    assert roles("encoder", "attn.q", "stem.conv.*", "layer.0.attn.q") == [
        "stem.conv.0",
        "layer.0.attn.q",
        "layer.1.attn.q",
        "encoder",
    ]


def test_a_pattern_that_hits_nothing_names_what_is_near():
    with pytest.raises(SiteError, match=r"no site has the role 'attn\.qq'.*attn\.q"):
        roles("attn.q", "attn.qq")


@pytest.mark.parametrize("role", ["layer.x.attn", "attn.q", "layer.0.mlp", "stem.conv", ""])
def test_roles_outside_the_closed_list_are_refused(role):
    with pytest.raises(SiteError, match="is not a role"):
        Site(role, "a", "b", 1, 1)


def test_the_table_by_role_keeps_the_order():
    assert list(by_role(CONFORMER)) == [site.role for site in CONFORMER]


def test_heads_are_known_at_self_attentions_and_their_maps_alone():
    table = [*CONFORMER, at("layer.0.attn", "l0", 32, 32), at("layer.0.norm.attn", "n", 32, 32)]
    found = {site.role: site.heads for site in with_heads(table, 4)}
    assert {role for role, heads in found.items() if heads} == {
        "layer.0.attn.q",
        "layer.1.attn.q",
        "layer.0.attn",
    }
    assert set(found.values()) == {0, 4}
