"""The change to stem and norms: exact merges at all three kinds of module, and its size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from speechadapt.adapters.methods.native_length import (
    METHOD,
    NativeLengthAdapter,
    NativeLengthConfig,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

FIRST = at("stem.conv.0", "conv1", 5, 8, "Conv1d", ConvShape(3, 1, 1))
SECOND = at("stem.conv.1", "conv2", 8, 8, "Conv1d", ConvShape(3, 2, 1))
PATCHES = at("stem.conv.0", "projection", 1, 8, "Conv2d", ConvShape(4, 3, across=(6, 2)))
NORM = at("layer.0.norm.attn", "norm", 8, 8, "LayerNorm")
CONFIG = NativeLengthConfig(rank=2, alpha=3.0)
CONTEXT = Context()

CASES = [
    (FIRST, nn.Conv1d(5, 8, 3, padding=1), (2, 5, 11)),
    (SECOND, nn.Conv1d(8, 8, 3, stride=2, padding=1), (2, 8, 11)),
    (PATCHES, nn.Conv2d(1, 8, (6, 4), stride=(2, 3)), (2, 1, 20, 17)),
    (NORM, nn.LayerNorm(8), (2, 5, 8)),
]


def _moved(site: Site) -> NativeLengthAdapter:
    adapter = NativeLengthAdapter(site, CONFIG)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    return adapter


@pytest.mark.parametrize(("site", "module", "shape"), CASES)
def test_it_starts_as_exactly_the_identity(
    site: Site, module: nn.Module, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape)
    y = module(x)
    assert torch.equal(NativeLengthAdapter(site, CONFIG).leave(x, y, CONTEXT), y)


@pytest.mark.parametrize(("site", "module", "shape"), CASES)
def test_merging_gives_the_same_output(
    site: Site, module: nn.Module, shape: tuple[int, ...]
) -> None:
    adapter, x = _moved(site), torch.randn(shape)
    expected = adapter.leave(x, module(x), CONTEXT)
    assert METHOD.weight_delta is not None
    delta = METHOD.weight_delta(adapter, module)
    state = dict(module.state_dict())
    state["weight"] = state["weight"] + delta.weight
    if delta.bias is not None:
        state["bias"] = state["bias"] + delta.bias
    merged = torch.func.functional_call(module, state, x)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(module(x), expected)


def test_a_convolution_changes_by_scaled_factors_tap_by_tap() -> None:
    adapter, x = _moved(SECOND), torch.randn(1, 8, 7)
    factors = adapter.factors(nn.Conv1d(8, 8, 3))
    assert factors is not None
    assert factors.scale == 1.5
    change = adapter.leave(x, torch.zeros(1, 8, 4), CONTEXT)
    padded = nn.functional.pad(x, (1, 1))
    for position in range(4):
        window = padded[0, :, 2 * position : 2 * position + 3]
        narrow = (factors.down * window).sum(dim=(1, 2))
        expected = 1.5 * factors.up[:, :, 0] @ narrow
        torch.testing.assert_close(change[0, :, position], expected, rtol=1e-4, atol=1e-5)


def test_a_norm_is_scaled_and_shifted_after_the_fact() -> None:
    adapter, y = _moved(NORM), torch.randn(2, 5, 8)
    state = adapter.state_dict()
    expected = y * (1 + state["change.gain"]) + state["change.shift"]
    torch.testing.assert_close(adapter.leave(y, y, CONTEXT), expected)
    assert adapter.factors(nn.LayerNorm(8)) is None


def test_silence_past_a_clips_end_stays_silence() -> None:
    adapter, x = _moved(FIRST), torch.randn(1, 5, 11)
    x[:, :, 6:] = 0.0
    change = adapter.leave(x, torch.zeros(1, 8, 11), CONTEXT)
    assert torch.equal(change[:, :, 7:], torch.zeros(1, 8, 4))


@pytest.mark.parametrize("site", [FIRST, SECOND, PATCHES, NORM])
def test_the_closed_form_counts_every_parameter(site: Site) -> None:
    counted = sum(one.numel() for one in NativeLengthAdapter(site, CONFIG).parameters())
    assert METHOD.parameters(site, CONFIG) == counted


def test_a_whisper_small_sized_encoder_needs_under_a_fifth_of_a_percent() -> None:
    convolutions = [
        at("stem.conv.0", "conv1", 80, 768, "Conv1d", ConvShape(3, 1, 1)),
        at("stem.conv.1", "conv2", 768, 768, "Conv1d", ConvShape(3, 2, 1)),
    ]
    norms = [at(f"layer.{i}.norm.{n}", n, 768, 768) for i in range(12) for n in ("attn", "ffn")]
    norms = [at(site.role, site.read, 768, 768, "LayerNorm") for site in norms]
    total = sum(METHOD.parameters(site, NativeLengthConfig()) for site in convolutions + norms)
    assert total == 102_144
    assert total / 88_154_112 < 0.002  # parameters of the encoder of Whisper small


def test_a_rank_above_the_convolution_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.rank must be between 1 and 8 .* got 9"):
        NativeLengthAdapter(FIRST, NativeLengthConfig(rank=9))


@pytest.mark.parametrize(
    "site",
    [
        at("layer.0.attn.q", "q", 8, 8),
        at("layer.0.conv.pw1", "pw1", 8, 16, "Conv1d", ConvShape(1)),
        Site("encoder", "layers.0", "layer_norm", 8, 8, kind="LayerNorm"),
    ],
)
def test_other_sites_are_refused_by_their_role(site: Site) -> None:
    with pytest.raises(SiteError, match=f"stem convolutions and norms, but '{site.role}'"):
        NativeLengthAdapter(site, CONFIG)
