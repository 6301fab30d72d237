"""Attention over channels: one channel is the base, and each moment has its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.channel_attention import (
    METHOD,
    ChannelAttention,
    ChannelAttentionConfig,
)
from speechadapt.adapters.second_attention import RECORDING, Heads, Meeting
from speechadapt.adapters.spec import Context
from speechadapt.encoders.sites import at, with_heads

SITES = with_heads([at(f"layer.0.attn.{one}", one, 8, 8) for one in ("q", "k", "v", "out")], 2)


def alive(strength: float = 1.0) -> ChannelAttention:
    torch.manual_seed(0)
    adapter = ChannelAttention(SITES[3], Meeting(SITES, "channel_attention"), strength)
    torch.nn.init.normal_(adapter.out.weight)
    torch.nn.init.normal_(adapter.out.bias)
    return adapter


def found_in(rows: int, frames: int = 5) -> Heads:
    return Heads(*torch.randn(3, rows, 2, frames, 4))


def by_hand(adapter: ChannelAttention, heads: Heads, rows: list[int], frame: int) -> Tensor:
    """Attend over the channels of one recording at one frame; return what each gets."""
    merged = []
    for head in range(2):
        query, key, value = (
            one[rows, head, frame] for one in (heads.query, heads.key, heads.value)
        )
        merged.append(torch.softmax(query @ key.T / 4**0.5, dim=1) @ value)
    return adapter.out(torch.cat(merged, dim=1))


@torch.no_grad()
def test_channels_of_a_recording_meet_at_the_same_frame_and_no_others() -> None:
    adapter, heads, y = alive(0.5), found_in(5), torch.randn(5, 5, 8)
    named = Context(conditions={RECORDING: ["a", "b", "a", None, "b"]})
    changed = adapter.attend(heads, y, named)
    for rows in ([0, 2], [1, 4]):
        for frame in range(5):
            expected = y[rows, frame] + 0.5 * by_hand(adapter, heads, rows, frame)
            torch.testing.assert_close(changed[rows, frame], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(changed[3], y[3])


@torch.no_grad()
def test_a_channel_that_has_ended_is_not_heard() -> None:
    adapter, heads, y = alive(), found_in(3), torch.randn(3, 5, 8)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 3:] = False
    named = Context(mask=mask, conditions={RECORDING: ["a", "a", "a"]})
    changed = adapter.attend(heads, y, named)
    for frame, rows in ((2, [0, 1, 2]), (4, [0, 2])):
        expected = y[rows, frame] + by_hand(adapter, heads, rows, frame)
        torch.testing.assert_close(changed[rows, frame], expected, rtol=1e-4, atol=1e-5)
    assert bool(changed.isfinite().all())


@pytest.mark.parametrize("family", ["whisper", "w2v_bert", "ast"])
def test_one_channel_is_the_base_exactly_after_training_too(
    load, clips, move, frames, family: str
) -> None:
    encoder = load(family)
    move(attach(encoder, "channel_attention"), 0.5)
    base = frames(encoder, None)
    for recordings in (None, ["a", "b", "c"], [None, None, None]):
        conditions = {} if recordings is None else {RECORDING: recordings}
        found = frames(encoder, "channel_attention", conditions=conditions)
        assert torch.equal(found, base)
    pair = frames(encoder, "channel_attention", conditions={RECORDING: ["a", "b", "a"]})
    assert torch.equal(pair[1], base[1])
    assert not torch.allclose(pair[0], base[0], atol=1e-2)


def test_the_order_of_the_channels_does_not_matter(load, signal, move) -> None:
    encoder = load("w2v_bert")
    move(attach(encoder, "channel_attention"), 0.1)
    channels = [signal(6000, seed) for seed in range(3)]
    with torch.no_grad(), active(encoder, "channel_attention", {RECORDING: ["a"] * 3}):
        one = encoder.encode(channels)[0]
        other = encoder.encode([channels[2], channels[0], channels[1]])[0]
    torch.testing.assert_close(other[[1, 2, 0]], one, rtol=0, atol=1e-4)
    assert not torch.allclose(one[0], one[1], atol=1e-2)


def test_the_closed_form_is_that_of_four_maps() -> None:
    config = ChannelAttentionConfig()
    assert sum(METHOD.parameters(site, config) for site in SITES) == 4 * 8 * 8 + 3 * 8
