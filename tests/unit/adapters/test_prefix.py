"""Positions ahead of the frames: what they widen, and where none can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from speechadapt.adapters.prefix import Prefix, check_prefix
from speechadapt.core.errors import SiteError
from speechadapt.encoders.sites import Part
from speechadapt.encoders.w2v_bert import sites

PREFIX = Prefix(2)
PART = Part("attention_mask", "turns")


def mask_of(kind: str, queries: int = 4) -> torch.Tensor:
    keep = torch.ones(2, 1, queries, 4, dtype=torch.bool)
    keep[1, ..., 3] = False
    lowest = torch.finfo(torch.float32).min
    return keep if kind == "bool" else torch.zeros(keep.shape).masked_fill(~keep, lowest)


def test_frames_come_back_from_behind_the_prefix() -> None:
    states = torch.randn(2, 4, 3)
    longer = PREFIX.gather(states)
    assert longer.shape == (2, 6, 3)
    assert not bool(longer[:, :2].any())
    assert torch.equal(PREFIX.put_back(longer, 4), states)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_every_frame_sees_the_prefix_and_what_it_saw_before(kind: str) -> None:
    mask = mask_of(kind)
    _, named = PREFIX.arguments(PART, torch.zeros(2, 4, 3), (), {"attention_mask": mask})
    given, _ = PREFIX.arguments(PART, torch.zeros(2, 4, 3), (torch.zeros(2, 4, 3), mask), {})
    wide = named["attention_mask"]
    assert torch.equal(given[1], wide)
    assert wide.shape == (2, 1, 6, 6)
    seen = wide if kind == "bool" else wide == 0
    assert bool(seen[..., :2].all())
    assert torch.equal(seen[:, :, 2:, 2:], mask_of("bool"))


def test_a_mask_of_keys_alone_stays_one() -> None:
    _, named = PREFIX.arguments(
        PART, torch.zeros(2, 4, 3), (), {"attention_mask": mask_of("bool", 1)}
    )
    assert named["attention_mask"].tolist() == [[[[True] * 6]], [[[True] * 5 + [False]]]]


def test_without_a_mask_there_is_none() -> None:
    _, named = PREFIX.arguments(PART, torch.zeros(2, 4, 3), (), {"attention_mask": None})
    assert named == {"attention_mask": None}
    assert PREFIX.arguments(PART, torch.zeros(2, 4, 3), (), {})[1] == {}


def test_the_prefix_is_not_turned() -> None:
    turns = torch.randn(2, 4, 1, 1, 3)
    _, named = PREFIX.arguments(PART, torch.zeros(2, 4, 3), (), {"turns": turns})
    cosine, sine = named["turns"]
    assert bool((cosine[:2] == 1).all())
    assert not bool(sine[:2].any())
    assert torch.equal(named["turns"][:, 2:], turns)


@pytest.mark.parametrize("kind", ["relative_key", "rotary", None])
def test_a_conformer_takes_one_by_the_positions_it_counts_itself(kind, load) -> None:
    config = load("w2v_bert").model.config
    config.position_embeddings_type = kind
    check_prefix(sites(config)["layer.0.attn"], "mine")


def test_no_prefix_goes_ahead_where_frames_are_not_attended_to(load) -> None:
    encoder = load("w2v_bert")
    with pytest.raises(SiteError, match=r"'mine' puts .* 'layer.0.conv' .*positions are absolute"):
        check_prefix(encoder.site("layer.0.conv"), "mine")
    config = encoder.model.config
    config.position_embeddings_type = "relative"
    with pytest.raises(SiteError, match="takes none"):
        check_prefix(sites(config)["layer.0.attn"], "mine")
    attention = load("ast").site("layer.1.attn")
    check_prefix(attention, "mine")
    with pytest.raises(SiteError, match="takes none"):
        check_prefix(replace(attention, prefix=None), "mine")
