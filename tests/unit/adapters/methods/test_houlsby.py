"""The series adapter against its formula and its published start."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from speechadapt.adapters.methods.houlsby import METHOD, HoulsbyAdapter, HoulsbyConfig
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

SITE = Site("layer.0.attn", "self_attn", "self_attn.out_proj", 32, 32, tap="norm")
CONTEXT = Context()


def test_the_output_is_the_published_formula_on_the_sublayers_output() -> None:
    adapter = HoulsbyAdapter(SITE, HoulsbyConfig(bottleneck=8, initial="normal"))
    x, y = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    block = adapter.bottleneck
    down = functional.gelu(y @ block.down.weight.T + block.down.bias)
    expected = y + down @ block.up.weight.T + block.up.bias
    torch.testing.assert_close(adapter.leave(x, y, CONTEXT), expected)


def test_a_hand_computed_frame() -> None:
    adapter = HoulsbyAdapter(
        Site("layer.0.ffn", "fc1", "fc2", 2, 2), HoulsbyConfig(bottleneck=1, activation="relu")
    )
    block = adapter.bottleneck
    with torch.no_grad():
        block.down.weight.copy_(torch.tensor([[1.0, 2.0]]))
        block.down.bias.fill_(-1.0)
        block.up.weight.copy_(torch.tensor([[3.0], [-1.0]]))
        block.up.bias.copy_(torch.tensor([0.5, 0.25]))
    y = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    # relu(1 + 2 - 1) = 2, so 1 + 6 + 0.5 and 1 - 2 + 0.25; relu(-1) = 0 leaves the biases
    expected = torch.tensor([[[7.5, -0.75], [0.5, 0.25]]])
    torch.testing.assert_close(adapter.leave(torch.zeros(1, 2, 2), y, CONTEXT), expected)


def test_the_default_start_is_exactly_the_identity() -> None:
    adapter = HoulsbyAdapter(SITE, HoulsbyConfig(bottleneck=8))
    y = torch.randn(2, 5, 32)
    assert torch.equal(adapter.leave(torch.randn(2, 5, 32), y, CONTEXT), y)


def test_the_published_start_is_close_to_the_identity_but_not_exactly_it() -> None:
    adapter = HoulsbyAdapter(SITE, HoulsbyConfig(bottleneck=8, initial="near_zero"))
    y = torch.randn(2, 5, 32)
    changed = adapter.leave(torch.randn(2, 5, 32), y, CONTEXT)
    relative = (changed - y).norm() / y.norm()
    assert 0.0 < relative < 1e-2


def test_its_own_norm_makes_the_branch_blind_to_the_scale_of_its_input() -> None:
    config = HoulsbyConfig(bottleneck=8, initial="normal", own_norm=True)
    adapter = HoulsbyAdapter(SITE, config)
    y = torch.randn(2, 5, 32)
    once = adapter.leave(y, y, CONTEXT) - y
    thrice = adapter.leave(y, 3 * y, CONTEXT) - 3 * y
    torch.testing.assert_close(once, thrice, rtol=1e-3, atol=1e-5)


def test_both_projections_move_in_training() -> None:
    adapter = HoulsbyAdapter(SITE, HoulsbyConfig(bottleneck=8))
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=1e-2, weight_decay=0.0)
    y, wanted = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    for _ in range(5):
        optimiser.zero_grad()
        (adapter.leave(y, y, CONTEXT) - wanted).square().mean().backward()
        optimiser.step()
    assert all(not torch.equal(before[name], now) for name, now in adapter.state_dict().items())


@pytest.mark.parametrize("own_norm", [True, False])
def test_the_closed_form_is_the_published_count(own_norm: bool) -> None:
    config = HoulsbyConfig(bottleneck=8, own_norm=own_norm)
    counted = sum(parameter.numel() for parameter in HoulsbyAdapter(SITE, config).parameters())
    assert METHOD.parameters(SITE, config) == counted == 2 * 32 * 8 + 8 + 32 + 64 * own_norm


def test_whisper_small_costs_what_the_paper_of_parameters_says() -> None:
    wide = Site("layer.0.ffn", "fc1", "fc2", 768, 768)
    assert 24 * METHOD.parameters(wide, HoulsbyConfig()) == 2_379_264


def test_a_bottleneck_above_the_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.bottleneck must be between 1 and 32"):
        HoulsbyAdapter(SITE, HoulsbyConfig(bottleneck=33))


def test_a_convolution_is_refused() -> None:
    with pytest.raises(SiteError, match="works on frames"):
        HoulsbyAdapter(
            at("layer.0.conv.pw1", "pw1", 32, 64, "Conv1d", ConvShape(1)), HoulsbyConfig()
        )
