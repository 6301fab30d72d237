from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import attach
from speechadapt.adapters.second_attention import (
    RECORDING,
    CopiedMap,
    Heads,
    Meeting,
    first_rows,
    map_parameters,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import at

SITES = [at(f"layer.0.attn.{name}", name, 8, 8) for name in ("q", "k", "v", "out")]


def test_rows_of_one_name_belong_to_the_first_of_them() -> None:
    assert first_rows(Context(), 3) == [0, 1, 2]
    named = Context(conditions={RECORDING: ["a", "b", None, "a", None, "b"]})
    assert first_rows(named, 6) == [0, 1, 2, 0, 4, 1]
    assert first_rows(Context(conditions={RECORDING: torch.tensor([7, 7, 9])}), 3) == [0, 0, 2]


def test_streams_of_a_row_do_not_meet_one_another() -> None:
    names = {RECORDING: ["a", "a", "b", "b", "a", "a", None, None]}
    assert first_rows(Context(conditions=names, streams=2), 8) == [0, 1, 2, 3, 0, 1, 6, 7]


def test_names_for_another_number_of_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="'recording' has 2 entries for 3 rows"):
        first_rows(Context(conditions={RECORDING: ["a", "a"]}), 3)


def test_what_one_attachment_leaves_no_other_finds() -> None:
    one, other = Meeting(SITES, "mine"), Meeting(SITES, "mine")
    context, elsewhere = Context(), Context()
    for place, name in enumerate("qkv"):
        one.leave(f"layer.0.attn.{name}", torch.full((2, 3, 8), float(place)), context)
    for nobody in ((other, context), (one, elsewhere)):
        with pytest.raises(KeyError):
            nobody[0].take("layer.0.attn.out", 2, nobody[1])
    found = one.take("layer.0.attn.out", 2, context)
    assert found.query.shape == (2, 2, 3, 4)
    assert [float(part.max()) for part in (found.query, found.key, found.value)] == [0, 1, 2]
    assert context.kept == {}


def test_heads_are_those_of_the_frozen_attention() -> None:
    states = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8)
    meeting, context = Meeting(SITES, "mine"), Context()
    for name in "qkv":
        meeting.leave(f"layer.0.attn.{name}", states, context)
    found = meeting.take("layer.0.attn.out", 4, context)
    assert torch.equal(found.key[1, 2], states[1, :, 4:6])
    index = torch.tensor([1])
    assert torch.equal(found.rows(index).value, found.value[1:])
    assert isinstance(found, Heads)


@pytest.mark.parametrize("method", ["channel_attention", "anchor_attention"])
@pytest.mark.parametrize("family", ["whisper", "w2v_bert", "ast"])
def test_copied_maps_start_as_the_frozen_ones(load, family: str, method: str) -> None:
    encoder = load(family)
    handle = attach(encoder, method)
    assert {site.heads for site in handle.sites} == {4}
    copies = {
        role: one for role, one in handle.module.by_role().items() if isinstance(one, CopiedMap)
    }
    assert len(copies) == (6 if method == "channel_attention" else 2)
    for role, copy in copies.items():
        frozen = encoder.model.get_submodule(encoder.site(role).write)
        assert torch.equal(copy.weight, frozen.weight)
        assert (copy.bias is None) == role.endswith(".k")
        if copy.bias is not None:
            assert torch.equal(copy.bias, frozen.bias)
        assert map_parameters(encoder.site(role)) == sum(one.numel() for one in copy.parameters())


def test_a_layer_without_all_four_maps_is_refused(load) -> None:
    with pytest.raises(SiteError, match=r"'layer\.0\.attn\.k' is not among them"):
        attach(load(), "channel_attention", roles=["attn.q", "attn.v", "attn.out"])
    with pytest.raises(SiteError, match=r"of the chosen roles 'layer\.0\.ffn\.up'"):
        attach(load(), "anchor_attention", roles=["attn.*", "ffn.up"])


def test_some_layers_can_be_chosen(load) -> None:
    handle = attach(load(), "channel_attention", roles=["layer.1.attn.*"])
    assert [site.role for site in handle.sites] == [
        f"layer.1.attn.{name}" for name in ("q", "k", "v", "out")
    ]
