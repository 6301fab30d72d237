"""The bridge: the published network at the encoder's output, its places, its size, its refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.pea_bridge import (
    METHOD,
    PeaBridgeAdapter,
    PeaBridgeConfig,
    sinusoids,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import SiteError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.sites import ConvShape, Grid, Site, at

OUTPUT = Site("encoder", "layers.0", "layer_norm", 6, 6, kind="LayerNorm")
CONTEXT = Context()


def test_it_is_the_published_network_without_places() -> None:
    adapter = PeaBridgeAdapter(OUTPUT, PeaBridgeConfig(dim=5))
    # the layers of the reference, with their biases: none on the first, one on the others
    published = nn.Sequential(
        nn.LayerNorm(6),
        nn.Linear(6, 12, bias=False),
        nn.GELU(),
        nn.Linear(12, 12),
        nn.GELU(),
        nn.Linear(12, 5),
    )
    with torch.no_grad():
        for own, theirs in zip(adapter.parameters(), published.parameters(), strict=True):
            theirs.copy_(own)
    frames = torch.randn(2, 7, 6)
    expected = published(frames)
    assert torch.allclose(adapter.leave(frames, frames, CONTEXT), expected, atol=1e-6)


def test_what_goes_into_the_encoder_is_not_read() -> None:
    adapter, frames = PeaBridgeAdapter(OUTPUT, PeaBridgeConfig()), torch.randn(1, 3, 6)
    first = adapter.leave(torch.zeros(1, 3, 6), frames, CONTEXT)
    assert torch.equal(first, adapter.leave(torch.ones(1, 3, 6), frames, CONTEXT))


def test_places_tell_equal_frames_apart() -> None:
    frames = torch.ones(1, 4, 6) * torch.arange(6.0)
    plain = PeaBridgeAdapter(OUTPUT, PeaBridgeConfig())
    placed = PeaBridgeAdapter(OUTPUT, PeaBridgeConfig(places=True))
    same, apart = plain.leave(frames, frames, CONTEXT), placed.leave(frames, frames, CONTEXT)
    assert torch.allclose(same[0, 0], same[0, 3])
    assert not torch.allclose(apart[0, 0], apart[0, 3], atol=1e-3)


def test_places_are_whispers_own_sinusoids() -> None:
    table = sinusoids(3, 4)
    expected = [
        [math.sin(place), math.sin(place / 10_000), math.cos(place), math.cos(place / 10_000)]
        for place in range(3)
    ]
    assert torch.allclose(table, torch.tensor(expected), atol=1e-6)
    assert sinusoids(2, 5).shape == (2, 5)


@pytest.mark.parametrize(
    "config",
    [
        PeaBridgeConfig(),
        PeaBridgeConfig(hidden=9, dim=4, repeat=3),
        PeaBridgeConfig(hidden=5, places=True),
    ],
)
def test_its_size_is_the_closed_form(config: PeaBridgeConfig) -> None:
    adapter = PeaBridgeAdapter(OUTPUT, config)
    count = sum(tensor.numel() for tensor in adapter.parameters())
    assert count == METHOD.parameters(OUTPUT, config)


def test_a_frame_may_give_several(tiny_folder, signal) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    attach(encoder, "pea_bridge", name="bridge", config={"hidden": 8, "dim": 5, "repeat": 3})
    with torch.no_grad():
        frames, lengths = encoder.encode([signal(8000)])
        with active(encoder, None):
            base, counts = encoder.encode([signal(8000)])
    assert frames.shape == (1, base.shape[1], 15)
    assert torch.equal(lengths, counts)


def test_patches_of_a_spectrogram_keep_their_width() -> None:
    patches = Site("encoder", "layers.0", "layernorm", 6, 6, kind="LayerNorm", grid=Grid(2, 3, 4))
    PeaBridgeAdapter(patches, PeaBridgeConfig())
    with pytest.raises(SiteError, match="patches of width 6"):
        PeaBridgeAdapter(patches, PeaBridgeConfig(dim=5))
    with pytest.raises(SiteError, match="patches of width 6"):
        PeaBridgeAdapter(patches, PeaBridgeConfig(repeat=2))


def test_a_convolution_is_refused() -> None:
    stem = at("stem.conv.0", "conv1", 5, 6, "Conv1d", ConvShape(3, 1, 1))
    with pytest.raises(SiteError, match="works on frames"):
        PeaBridgeAdapter(stem, PeaBridgeConfig())


def test_the_activation_is_the_exact_gelu() -> None:
    adapter = PeaBridgeAdapter(OUTPUT, PeaBridgeConfig(hidden=6))
    with torch.no_grad():
        for layer in (adapter.first, adapter.second, adapter.last):
            layer.weight.copy_(torch.eye(6))
        adapter.second.bias.zero_()
        adapter.last.bias.zero_()
    frames = torch.randn(1, 2, 6)
    normed = functional.layer_norm(frames, (6,))
    expected = functional.gelu(functional.gelu(normed))
    assert torch.allclose(adapter.leave(frames, frames, CONTEXT), expected, atol=1e-6)
