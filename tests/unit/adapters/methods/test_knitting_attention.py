"""Knitting attention: its formula, what each of its two steps reaches, and its cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.methods.knitting_attention import (
    METHOD,
    KnittingAttentionAdapter,
    KnittingAttentionConfig,
    SequenceAttention,
    positions,
    scores,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, ShapeError
from speechadapt.encoders.sites import Grid, Site

SITE = Site("layer.0.attn", "a", "a.out", 12, 12)
GRID = replace(SITE, grid=Grid(specials=2, rows=3, columns=4))
CONFIG = KnittingAttentionConfig(width=8, heads=2)
NOTHING = Context()
TOKENS = 2 + 3 * 4


def alive(site: Site = GRID, config: KnittingAttentionConfig = CONFIG) -> KnittingAttentionAdapter:
    torch.manual_seed(0)
    adapter = KnittingAttentionAdapter(site, config)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return adapter


def by_hand(attention: SequenceAttention, sequence: Tensor) -> Tensor:
    """Attend within one sequence, position by position and head by head."""
    length, width = sequence.shape
    placed = attention.norm(sequence)
    for place in range(length):
        for number in range(width // 2):
            angle = torch.tensor(place / 10000 ** (2 * number / width))
            placed[place, number] += angle.sin()
            placed[place, width // 2 + number] += angle.cos()
    query, key, value = (one(placed) for one in (attention.query, attention.key, attention.value))
    found = torch.zeros_like(sequence)
    size = width // attention.heads
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        for place in range(length):
            weights = torch.softmax(key[:, part] @ query[place, part] / size**0.5, dim=0)
            found[place, part] = weights @ value[:, part]
    return sequence + attention.out(found)


@torch.no_grad()
def test_patches_go_along_their_band_and_then_along_their_moment() -> None:
    adapter = alive()
    x, y = torch.randn(1, TOKENS, 12), torch.randn(1, TOKENS, 12)
    picture = adapter.down(x[0, 2:]).reshape(3, 4, 8)
    picture = torch.stack([by_hand(adapter.time, band) for band in picture])
    columns = [by_hand(adapter.frequency, picture[:, moment]) for moment in range(4)]
    picture = torch.stack(columns, dim=1)
    expected = y.clone()
    expected[0, 2:] += adapter.up(picture.reshape(12, 8))
    torch.testing.assert_close(adapter.leave(x, y, NOTHING), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_new_order_of_the_bands_goes_through_the_time_step_as_it_is() -> None:
    adapter = alive()
    picture = torch.randn(2, 3, 4, 8)
    order = torch.tensor([2, 0, 1])
    along_time = adapter.time(picture)
    torch.testing.assert_close(adapter.time(picture[:, order]), along_time[:, order])
    after = adapter.along_frequency(along_time)
    reordered = adapter.along_frequency(along_time[:, order])
    assert not torch.allclose(reordered, after[:, order], atol=1e-2)


def reached(config: KnittingAttentionConfig, step: str) -> set[int]:
    """Return the patches whose state changes with that of patch (1, 2)."""
    adapter = alive(config=config)
    run = getattr(adapter, step)
    picture = torch.randn(1, 3, 4, 8)
    changed = picture.clone()
    changed[0, 1, 2] += torch.randn(8)
    with torch.no_grad():
        difference = (run(changed) - run(picture)).abs().amax(dim=(0, 3))
    return set(torch.nonzero(difference.flatten() > 1e-5).flatten().tolist())


def test_each_step_reaches_a_line_and_both_reach_the_grid() -> None:
    assert reached(CONFIG, "time") == {4, 5, 6, 7}
    assert reached(CONFIG, "along_frequency") == {2, 6, 10}
    for order in ("time_first", "frequency_first"):
        assert reached(replace(CONFIG, order=order), "knit") == set(range(12))


@torch.no_grad()
def test_the_order_of_the_steps_is_as_asked() -> None:
    first, other = alive(), alive(config=replace(CONFIG, order="frequency_first"))
    picture = torch.randn(1, 3, 4, 8)
    torch.testing.assert_close(first.knit(picture), first.along_frequency(first.time(picture)))
    torch.testing.assert_close(other.knit(picture), first.time(first.along_frequency(picture)))
    assert not torch.allclose(first.knit(picture), other.knit(picture), atol=1e-2)


@torch.no_grad()
def test_special_tokens_are_left_alone_and_are_not_read() -> None:
    adapter = alive()
    x, y = torch.randn(2, TOKENS, 12), torch.randn(2, TOKENS, 12)
    found = adapter.leave(x, y, NOTHING)
    assert torch.equal(found[:, :2], y[:, :2])
    assert not torch.allclose(found[:, 2:], y[:, 2:], atol=1e-2)
    x[:, :2] += 5.0
    assert torch.equal(adapter.leave(x, y, NOTHING), found)


@torch.no_grad()
def test_frames_that_are_no_patches_attend_along_time_and_not_to_padding() -> None:
    adapter = alive(SITE)
    assert adapter.frequency is None
    x, y = torch.randn(2, 6, 12), torch.randn(2, 6, 12)
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    together = adapter.leave(x, y, Context(mask=mask))
    alone = adapter.leave(x[:1, :4], y[:1, :4], NOTHING)
    torch.testing.assert_close(together[:1, :4], alone)
    expected = y[1] + adapter.up(by_hand(adapter.time, adapter.down(x[1])))
    torch.testing.assert_close(together[1], expected, rtol=1e-4, atol=1e-5)


def test_positions_tell_every_two_places_apart() -> None:
    table = positions(101, 8)
    apart = torch.cdist(table, table) + 10 * torch.eye(101)
    assert float(apart.min()) > 0.01


def test_on_the_usual_grid_it_computes_a_tenth_of_the_scores() -> None:
    usual = Grid(specials=2, rows=12, columns=101)
    assert scores(usual) == 12 * 101**2 + 101 * 12**2 == 136_956
    assert (12 * 101) ** 2 / scores(usual) == pytest.approx(10.7, abs=0.05)


@pytest.mark.parametrize("site", [SITE, GRID])
def test_the_closed_form_counts_every_parameter(site: Site) -> None:
    counted = sum(one.numel() for one in KnittingAttentionAdapter(site, CONFIG).parameters())
    assert METHOD.parameters(site, CONFIG) == counted


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"even and a multiple of adapter\.heads=4, got 30"):
        KnittingAttentionConfig(width=30)
    with pytest.raises(ConfigError, match=r"adapter\.width must be between 1 and 12 .* got 16"):
        KnittingAttentionAdapter(GRID, KnittingAttentionConfig(width=16))
    adapter = alive()
    tokens = torch.randn(1, TOKENS - 1, 12)
    with pytest.raises(ShapeError, match=r"given 13 tokens, .* 2 \+ 3 x 4 = 14"):
        adapter.leave(tokens, tokens, NOTHING)
