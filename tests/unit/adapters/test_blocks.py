"""Parts of adapters: projections, their first values, and how a branch joins a sub-layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from speechadapt.adapters.blocks import (
    Bottleneck,
    activation,
    bottleneck_parameters,
    check_frames,
    check_square,
    check_width,
    initialise,
    join,
    zero_padding,
)
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

BRANCH = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", [0.0, 0.0, 2.0]),
        ("leaky_relu", [-0.01, 0.0, 2.0]),
        ("gelu", [-0.15865525, 0.0, 1.95449974]),
        ("gelu_tanh", [-0.15880801, 0.0, 1.95459769]),
        ("silu", [-0.26894142, 0.0, 1.76159416]),
        ("tanh", [-0.76159416, 0.0, 0.96402758]),
        ("none", [-1.0, 0.0, 2.0]),
    ],
)
def test_each_activation_gives_its_known_values(name: str, expected: list[float]) -> None:
    values = torch.tensor([-1.0, 0.0, 2.0])
    torch.testing.assert_close(activation(name)(values), torch.tensor(expected))


def test_a_bottleneck_computes_its_formula_step_by_step() -> None:
    block = Bottleneck(5, 2, 3, bend="gelu", norm=True, initial="normal")
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.uniform_(-1, 1)
    states = torch.randn(2, 4, 5)
    centred = states - states.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    normed = centred / spread * block.norm.weight + block.norm.bias
    down = normed @ block.down.weight.T + block.down.bias
    bent = 0.5 * down * (1 + torch.erf(down / math.sqrt(2)))
    expected = bent @ block.up.weight.T + block.up.bias
    torch.testing.assert_close(block(states), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_the_closed_form_counts_every_parameter(bias: bool, norm: bool) -> None:
    block = Bottleneck(7, 3, 5, bias=bias, norm=norm)
    counted = sum(parameter.numel() for parameter in block.parameters())
    assert bottleneck_parameters(7, 3, 5, bias=bias, norm=norm) == counted


def test_up_zero_starts_at_exactly_nothing_with_the_first_projection_alive() -> None:
    block = Bottleneck(64, 32, 64, initial="up_zero")
    assert torch.equal(block(torch.randn(2, 3, 64)), torch.zeros(2, 3, 64))
    bound = 1 / math.sqrt(64)
    assert block.down.weight.abs().max() <= bound
    # a uniform distribution has the standard deviation bound / sqrt(3)
    assert block.down.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_near_zero_is_cut_at_two_standard_deviations_of_a_thousandth() -> None:
    block = Bottleneck(200, 64, 200, initial="near_zero")
    for layer in (block.down, block.up):
        assert layer.weight.abs().max() <= 2e-3
        # cutting a normal distribution at two standard deviations leaves 0.8796 of its spread
        assert layer.weight.std().item() == pytest.approx(0.8796e-3, rel=0.03)
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_normal_has_the_spread_of_berts_layers_on_both_sides() -> None:
    block = Bottleneck(200, 64, 200, initial="normal")
    for layer in (block.down, block.up):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_dropout_acts_on_the_input_in_training_alone() -> None:
    block = Bottleneck(4, 4, 4, bend="none", dropout=0.5, initial="normal")
    states = torch.ones(1, 200, 4)
    assert torch.equal(block.eval()(states), block(states))
    dropped = block.train()(states)
    assert not torch.equal(dropped[:, :1].expand_as(dropped), dropped)


def test_the_four_ways_to_join_a_branch() -> None:
    x, y = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    torch.testing.assert_close(join(BRANCH, x, y, "sequential", True), y + BRANCH(y))
    torch.testing.assert_close(join(BRANCH, x, y, "sequential", False), BRANCH(y))
    torch.testing.assert_close(join(BRANCH, x, y, "parallel", True), y + BRANCH(x) + x)
    torch.testing.assert_close(join(BRANCH, x, y, "parallel", False), y + BRANCH(x))


def test_zero_padding_keeps_valid_frames_and_clears_the_rest_even_of_nan() -> None:
    states = torch.tensor([[[1.0], [float("nan")]], [[2.0], [3.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    assert zero_padding(states, mask).flatten().tolist() == [1.0, 0.0, 2.0, 3.0]
    assert zero_padding(states, None) is states


def test_a_bottleneck_above_the_width_names_both() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.rank must be between 1 and 512 .* got 768"):
        check_width("rank", 768, 512)
    with pytest.raises(ConfigError, match="got 0"):
        check_width("rank", 0, 512)


def test_a_convolution_is_refused_by_name() -> None:
    site = at("stem.conv.0", "conv1", 80, 32, "Conv1d", ConvShape(3, 1, 1))
    with pytest.raises(SiteError, match=r"adapter 'houlsby' works on frames, but 'stem\.conv\.0'"):
        check_frames(site, "houlsby")


def test_unequal_widths_are_refused_with_both() -> None:
    site = Site("layer.0.ffn.up", "fc1", "fc1", 32, 48)
    with pytest.raises(SiteError, match=r"reads 32 values and writes 48"):
        check_square(site, "pfeiffer", "adds the residual stream")


def test_an_unknown_start_or_activation_names_near_misses() -> None:
    from jaxtyping import TypeCheckError

    # the annotation refuses it where tests check types; without them the message does
    with pytest.raises((ConfigError, TypeCheckError), match="up_zeros"):
        initialise(nn.Linear(2, 2), nn.Linear(2, 2), "up_zeros")  # type: ignore[arg-type]
    with pytest.raises((ConfigError, TypeCheckError), match="gelo"):
        activation("gelo")  # type: ignore[arg-type]
