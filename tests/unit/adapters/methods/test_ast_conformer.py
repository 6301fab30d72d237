"""The convolution adapter: its formula, where the convolution reaches, and defects shown absent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from speechadapt.adapters.methods.ast_conformer import (
    METHOD,
    AstConformerAdapter,
    AstConformerConfig,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, ShapeError, SiteError
from speechadapt.encoders.sites import ConvShape, Grid, Site, at

SITE = Site("layer.0.ffn", "fc1", "fc2", 16, 16, tap="final_layer_norm")
GRID = replace(SITE, grid=Grid(specials=2, rows=3, columns=5))
CONFIG = AstConformerConfig(bottleneck=4, kernel=3)
CONTEXT = Context()
TOKENS = 2 + 3 * 5


def _alive(site: Site, config: AstConformerConfig) -> AstConformerAdapter:
    """Return an adapter whose every tensor differs from its start."""
    adapter = AstConformerAdapter(site, config)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.empty_like(parameter).uniform_(0.2, 0.8))
    return adapter


def _layer_norm(states: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain + shift


def _by_hand(adapter: AstConformerAdapter, states: Tensor) -> Tensor:
    """Compute the branch on one sequence of frames, tap by tap."""
    normed = _layer_norm(states, adapter.layer_norm.weight, adapter.layer_norm.bias)
    wide = normed @ adapter.expand.weight.T + adapter.expand.bias
    gated = wide[..., :4] * torch.sigmoid(wide[..., 4:])
    kernel = adapter.convolution.weight[:, 0, 0]
    mixed = torch.zeros_like(gated)
    for position in range(gated.shape[1]):
        for tap in range(3):
            neighbour = position + tap - 1
            if 0 <= neighbour < gated.shape[1]:
                mixed[:, position] += kernel[:, tap] * gated[:, neighbour]
    assert adapter.norm.gain is not None
    assert adapter.norm.shift is not None
    after = _layer_norm(mixed, adapter.norm.gain, adapter.norm.shift)
    return (after * torch.sigmoid(after)) @ adapter.up.weight.T + adapter.up.bias


def test_frames_go_through_the_formula_tap_by_tap() -> None:
    adapter = _alive(SITE, CONFIG)
    x, y = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    torch.testing.assert_close(adapter.leave(x, y, CONTEXT), y + _by_hand(adapter, x))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_each_form_reads_and_adds_what_the_study_describes(order: str, residual: bool) -> None:
    adapter = _alive(SITE, replace(CONFIG, order=order, residual=residual))
    x, y = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    read = x if order == "parallel" else y
    expected = _by_hand(adapter, read)
    expected = expected + y if order == "parallel" else expected
    expected = expected + read if residual else expected
    torch.testing.assert_close(adapter.leave(x, y, CONTEXT), expected)


@pytest.mark.parametrize("norm", ["layer", "group", "none"])
@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_the_default_start_is_exactly_the_identity(order: str, norm: str) -> None:
    adapter = AstConformerAdapter(SITE, replace(CONFIG, order=order, norm=norm))
    y = torch.randn(2, 6, 16)
    assert torch.equal(adapter.leave(torch.randn(2, 6, 16), y, CONTEXT), y)


def _reached(site: Site, config: AstConformerConfig, token: int) -> set[int]:
    """Return the tokens whose output changes with one token's input."""
    adapter = _alive(site, config)
    x, y = torch.randn(1, TOKENS, 16), torch.zeros(1, TOKENS, 16)
    before = adapter.leave(x, y, CONTEXT)
    changed = x.clone()
    changed[:, token] += torch.randn(16)
    difference = (adapter.leave(changed, y, CONTEXT) - before).abs().amax(dim=(0, 2))
    return set(torch.nonzero(difference > 1e-6).flatten().tolist())


def _patch(row: int, column: int) -> int:
    return 2 + row * 5 + column


def test_along_time_a_patch_reaches_its_neighbours_in_its_own_row() -> None:
    assert _reached(GRID, CONFIG, _patch(1, 2)) == {_patch(1, 1), _patch(1, 2), _patch(1, 3)}


def test_along_time_the_last_patch_of_a_row_does_not_reach_the_next_row() -> None:
    assert _reached(GRID, CONFIG, _patch(0, 4)) == {_patch(0, 3), _patch(0, 4)}
    assert _reached(GRID, CONFIG, _patch(1, 0)) == {_patch(1, 0), _patch(1, 1)}


@pytest.mark.parametrize("special", [0, 1])
def test_a_special_token_reaches_itself_alone(special: int) -> None:
    assert _reached(GRID, CONFIG, special) == {special}


def test_along_the_flat_sequence_rows_and_special_tokens_do_run_into_one_another() -> None:
    flat = replace(CONFIG, axis="tokens")
    assert _reached(GRID, flat, _patch(0, 4)) == {_patch(0, 3), _patch(0, 4), _patch(1, 0)}
    assert _reached(GRID, flat, 1) == {0, 1, 2}


def test_on_the_grid_a_patch_reaches_the_square_around_it() -> None:
    square = {_patch(row, column) for row in (0, 1, 2) for column in (1, 2, 3)}
    assert _reached(GRID, replace(CONFIG, axis="grid"), _patch(1, 2)) == square
    corner = {_patch(row, column) for row in (0, 1) for column in (0, 1)}
    assert _reached(GRID, replace(CONFIG, axis="grid"), _patch(0, 0)) == corner


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_a_special_token_is_a_sequence_of_one_token(norm: str) -> None:
    config = replace(CONFIG, norm=norm)
    on_grid, on_frames = _alive(GRID, config), _alive(SITE, config)
    on_frames.load_state_dict(on_grid.state_dict())
    x, y = torch.randn(2, TOKENS, 16), torch.randn(2, TOKENS, 16)
    whole = on_grid.leave(x, y, CONTEXT)
    for special in (0, 1):
        alone = on_frames.leave(x[:, special, None], y[:, special, None], CONTEXT)
        torch.testing.assert_close(whole[:, special, None], alone)


def test_each_row_of_the_grid_is_a_sequence_of_its_own() -> None:
    on_grid, on_frames = _alive(GRID, CONFIG), _alive(SITE, CONFIG)
    on_frames.load_state_dict(on_grid.state_dict())
    x, y = torch.randn(2, TOKENS, 16), torch.randn(2, TOKENS, 16)
    whole = on_grid.leave(x, y, CONTEXT)
    for row in range(3):
        span = slice(_patch(row, 0), _patch(row, 4) + 1)
        alone = on_frames.leave(x[:, span], y[:, span], CONTEXT)
        torch.testing.assert_close(whole[:, span], alone)


def test_its_layer_norm_is_alive() -> None:
    adapter = _alive(SITE, CONFIG)
    x, y = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    before = adapter.leave(x, y, CONTEXT)
    # with the norm in force the branch sees neither the level nor the scale of its input
    torch.testing.assert_close(adapter.leave(5 * x + 2, y, CONTEXT), before, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        adapter.layer_norm.weight.mul_(torch.linspace(0.5, 1.5, 16))
    assert not torch.allclose(adapter.leave(x, y, CONTEXT), before)


def test_its_convolution_decides_the_output() -> None:
    adapter = _alive(SITE, CONFIG)
    x, y = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    before = adapter.leave(x, y, CONTEXT)
    with torch.no_grad():
        adapter.convolution.weight[:, :, :, 0] += 1.0
    assert not torch.allclose(adapter.leave(x, y, CONTEXT), before)


@pytest.mark.parametrize("norm", ["layer", "group", "none"])
@pytest.mark.parametrize("site", [SITE, GRID])
def test_training_moves_every_tensor(site: Site, norm: str) -> None:
    adapter = AstConformerAdapter(site, replace(CONFIG, norm=norm))
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=5e-3, weight_decay=0.0)
    x, y, wanted = (torch.randn(2, TOKENS, 16) for _ in range(3))
    for _ in range(10):
        optimiser.zero_grad()
        (adapter.leave(x, y, CONTEXT) - wanted).square().mean().backward()
        optimiser.step()
    assert all(not torch.equal(before[name], now) for name, now in adapter.state_dict().items())


@pytest.mark.parametrize("order", ["parallel", "sequential"])
@pytest.mark.parametrize("norm", ["layer", "group", "none"])
def test_padding_does_not_change_valid_frames_whatever_it_holds(norm: str, order: str) -> None:
    adapter = _alive(SITE, replace(CONFIG, norm=norm, order=order))
    x, y = torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    x[0, 4:], y[0, 4:] = float("inf"), float("nan")
    mask = torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    together = adapter.leave(x, y, Context(mask=mask))
    alone = adapter.leave(x[:1, :4], y[:1, :4], CONTEXT)
    torch.testing.assert_close(together[:1, :4], alone)
    torch.testing.assert_close(together[1:], adapter.leave(x[1:], y[1:], CONTEXT))


@pytest.mark.parametrize("norm", ["layer", "group", "none"])
def test_a_row_is_the_same_alone_and_in_a_batch_in_training_too(norm: str) -> None:
    adapter = _alive(SITE, replace(CONFIG, norm=norm)).train()
    x, y = torch.randn(3, 6, 16), torch.randn(3, 6, 16)
    alone = torch.cat([adapter.leave(x[i, None], y[i, None], CONTEXT) for i in range(3)])
    torch.testing.assert_close(adapter.leave(x, y, CONTEXT), alone)


def test_the_group_norm_equals_torchs_where_every_frame_is_valid() -> None:
    adapter = _alive(SITE, replace(CONFIG, norm="group", groups=2))
    states = torch.randn(2, 6, 4)
    expected = functional.group_norm(
        states.transpose(1, 2), 2, adapter.norm.gain, adapter.norm.shift
    ).transpose(1, 2)
    torch.testing.assert_close(adapter.norm(states, None), expected)


@pytest.mark.parametrize("axis", ["time", "grid", "tokens"])
@pytest.mark.parametrize("norm", ["layer", "group", "none"])
def test_the_closed_form_counts_every_parameter(norm: str, axis: str) -> None:
    config = replace(CONFIG, norm=norm, axis=axis)
    counted = sum(one.numel() for one in AstConformerAdapter(GRID, config).parameters())
    assert METHOD.parameters(GRID, config) == counted


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.kernel must be odd"):
        AstConformerConfig(kernel=8)


def test_groups_that_do_not_divide_the_width_are_refused_with_both() -> None:
    with pytest.raises(ConfigError, match=r"must divide adapter\.bottleneck=12, got 5"):
        AstConformerConfig(norm="group", groups=5)


def test_a_grid_is_refused_where_frames_are_no_patches() -> None:
    with pytest.raises(SiteError, match=r"adapter\.axis=grid was asked for at 'layer\.0\.ffn'"):
        AstConformerAdapter(SITE, replace(CONFIG, axis="grid"))


def test_tokens_that_do_not_fill_the_grid_are_refused_with_both_numbers() -> None:
    adapter = AstConformerAdapter(GRID, CONFIG)
    tokens = torch.randn(1, TOKENS - 1, 16)
    with pytest.raises(ShapeError, match=r"given 16 tokens, .* 2 \+ 3 x 5 = 17"):
        adapter.leave(tokens, tokens, CONTEXT)


def test_a_convolution_and_a_map_of_unequal_widths_are_refused() -> None:
    with pytest.raises(SiteError, match="works on frames"):
        AstConformerAdapter(at("stem.conv.1", "conv2", 16, 16, "Conv1d", ConvShape(3)), CONFIG)
    with pytest.raises(SiteError, match="reads 16 values and writes 24"):
        AstConformerAdapter(at("layer.0.ffn.up", "fc1", 16, 24), CONFIG)
