from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import attach, remove
from speechadapt.adapters.composed import compose, default_name
from speechadapt.adapters.composition import parse
from speechadapt.adapters.handle import attachment, attachments
from speechadapt.adapters.merge import merge
from speechadapt.adapters.methods.parallel import ParallelConfig
from speechadapt.core.errors import CatalogError, ConfigError, SiteError


def test_a_single_adapter_composes_to_itself(load, trained):
    encoder = load()
    trained(encoder)
    assert compose(encoder, "b") == ("b",)
    assert encoder.attached.default.rows == (("b",),)


def test_compositions_nest(load, trained, frames):
    encoder = load("w2v_bert")
    trained(encoder)
    names = compose(encoder, "stack(average(a, stack(b, c)), a)", name="outer")
    assert len(names) == 2
    assert names[1] == "a"
    inner = attachment(encoder, names[0])
    assert inner.composition == "average(a, stack(b, c))"
    base, whole = frames(encoder, None), frames(encoder, names)
    assert not torch.allclose(whole, base, atol=1e-3)
    assert torch.equal(frames(encoder, None), base)


def test_rows_may_have_compositions_of_their_own(load, trained, frames):
    encoder = load()
    trained(encoder)
    compose(encoder, "fuse(a, b, key_width=4)", name="two", activate=False)
    compose(encoder, "average(a, b, c)", name="all", activate=False)
    alone = {name: frames(encoder, name) for name in ("two", "all", ("two", "c"))}
    mixed = frames(encoder, ["two", "all", ("two", "c")])
    for row, name in enumerate(alone):
        torch.testing.assert_close(mixed[row], alone[name][row], rtol=0, atol=1e-5)


def test_parts_may_be_trained_along(load, trained, clips):
    encoder = load()
    handles = trained(encoder)
    for handle in handles:
        handle.module.requires_grad_(True)
    compose(encoder, "fuse(a, b, c, key_width=4)", name="both")
    encoder.encode(clips)[0].square().mean().backward()
    for handle in (*handles, attachment(encoder, "both")):
        for key, tensor in handle.named_parameters():
            # low-rank values start at zero behind a random map, whose gradient is zero then
            assert tensor.grad is not None, key


def test_names_are_made_of_the_text_where_nobody_says():
    assert default_name(parse("fuse(a, runs/b, method=gated)")) == "fuse-a-runs-b-method-gated"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("fuse(a, d)", CatalogError, "no adapter called 'd' is attached. Did you mean|On offer"),
        ("fuze(a, b)", CatalogError, "no composition 'fuze'. Did you mean fuse"),
        ("fuse(a)", ConfigError, r"'fuse\(a\)' takes 2 or more adapters, got 1"),
        ("fuse(a, a)", ConfigError, "names 'a' more than once"),
        ("fuse(a: 1, b: 2)", ConfigError, "gives weights, which fuse finds by itself"),
        ("fuse(a, b, metod=mean)", ConfigError, "metod"),
        ("fuse(a, b, method=sum)", ConfigError, "attention"),
        ("average(a: 1, b: -1)", ConfigError, "'b' was given the weight -1"),
    ],
)
def test_what_cannot_be_composed_leaves_the_encoder_as_it_was(load, trained, text, error, message):
    encoder = load()
    trained(encoder)
    with pytest.raises(error, match=message):
        compose(encoder, text)
    assert list(attachments(encoder)) == ["a", "b", "c"]


def test_an_inner_composition_is_taken_away_where_the_outer_fails(load, trained):
    encoder = load()
    trained(encoder)
    with pytest.raises(CatalogError, match="'d'"):
        compose(encoder, "stack(fuse(a, b), d)")
    assert list(attachments(encoder)) == ["a", "b", "c"]


def test_a_fusion_of_unlike_roles_names_the_odd_one(load, trained):
    encoder = load("w2v_bert")
    trained(encoder, names="ab")
    trained(encoder, names="c", roles=["ffn1"])
    with pytest.raises(SiteError, match=r"'a' stands at 'layer.0.ffn2' and 'c' does not"):
        compose(encoder, "fuse(a, b, c)")
    assert compose(encoder, "average(a, b, c)")


def test_what_is_merged_cannot_be_composed(load, trained):
    encoder = load()
    trained(encoder, "lora")
    merge(encoder, "b")
    with pytest.raises(ConfigError, match="'b' was to be composed, but is merged"):
        compose(encoder, "fuse(a, b)")


def test_norms_trained_beside_the_parts_are_mixed_too(load, trained, frames):
    encoder = load()
    trained(encoder, "lora", names="ab", train_norms="all")
    compose(encoder, "average(a: 1, b: 1)", name="both")
    sites = {site.role for site in attachment(encoder, "both").sites}
    assert any(".norm." in role for role in sites)
    remove(encoder, "b")
    attach(encoder, "lora", name="b", config={"rank": 2}, train_norms="none", activate=False)
    with pytest.raises(SiteError, match=r"'a' stands at 'encoder' and 'b' does not"):
        compose(encoder, "fuse(a, b)")


def test_an_average_of_low_rank_adapters_is_that_of_their_weights(load, trained, frames):
    """With weights of one adapter alone it is that adapter; halves of twins are the twin."""
    encoder = load()
    trained(encoder, "lora", names="ab", roles=["layer.0.attn.v"])
    first, second = (attachment(encoder, name).module.adapters()[0] for name in "ab")
    compose(encoder, "average(a: 3, b: 1)", name="mixed")
    mixed = frames(encoder, "mixed")
    delta = (
        0.75 * first.scale * first.change.weight() + 0.25 * second.scale * second.change.weight()
    )
    value = encoder.model.get_submodule(encoder.sites["layer.0.attn.v"].write)
    with torch.no_grad():
        value.weight += delta
    torch.testing.assert_close(frames(encoder, None), mixed, rtol=0, atol=1e-5)


def test_settings_reach_the_fusion(load, trained):
    encoder = load()
    trained(encoder, config=ParallelConfig(bottleneck=3))
    compose(encoder, "fuse(a, b, method=gated, per=layer)", name="gate")
    handle = attachment(encoder, "gate")
    assert handle.num_parameters() == 2 * len(handle.sites)
    assert handle.config.per == "layer"
