from __future__ import annotations

import pytest
import torch
from torch import nn

from speechadapt.adapters.attach import attach
from speechadapt.adapters.methods.parallel import METHOD, ParallelAdapter, ParallelConfig
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

SITE = Site("layer.0.ffn", "a", "b", 12, 12, tap="n")


def filled(config: ParallelConfig, site: Site = SITE) -> ParallelAdapter:
    torch.manual_seed(0)
    adapter = ParallelAdapter(site, config, None)
    with torch.no_grad():
        for tensor in adapter.parameters():
            tensor.copy_(torch.randn(tensor.shape))
    return adapter


@pytest.mark.parametrize("kind", ["fixed", "learned", "channel"])
@pytest.mark.parametrize("read", ["residual", "normed", "own_ln"])
def test_the_formula(kind, read):
    """y + s * (up relu(down norm(u))), written out."""
    config = ParallelConfig(bottleneck=5, input=read, scale=4.0, scale_kind=kind)
    adapter = filled(config)
    u, y = torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    inner = adapter.bottleneck
    scale = 4.0 if adapter.scale is None else adapter.scale
    v = u
    if read == "own_ln":
        v = (u - u.mean(-1, keepdim=True)) / (u.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        v = v * inner.norm.weight + inner.norm.bias
    bent = (v @ inner.down.weight.T + inner.down.bias).relu()
    wanted = y + scale * (bent @ inner.up.weight.T + inner.up.bias)
    torch.testing.assert_close(adapter.leave(u, y, Context()), wanted, rtol=1e-4, atol=1e-4)
    assert adapter.taps == (read != "normed")
    assert sum(one.numel() for one in adapter.parameters()) == METHOD.parameters(SITE, config)


def test_trained_scales_start_at_the_scale_and_fixed_ones_are_not_trained():
    assert ParallelAdapter(SITE, ParallelConfig(scale=4.0), None).scale is None
    learned = ParallelAdapter(SITE, ParallelConfig(scale=4.0, scale_kind="learned"), None)
    assert learned.scale.tolist() == [4.0]
    channel = ParallelAdapter(SITE, ParallelConfig(scale=4.0, scale_kind="channel"), None)
    assert channel.scale.tolist() == [4.0] * 12


def test_it_starts_as_identity_with_a_live_down_projection():
    adapter = ParallelAdapter(SITE, ParallelConfig(), None)
    y = torch.randn(1, 3, 12)
    assert torch.equal(adapter.leave(torch.randn(1, 3, 12), y, Context()), y)
    assert bool(adapter.bottleneck.down.weight.any())


def test_the_bottleneck_may_be_wider_than_the_site():
    assert METHOD.parameters(SITE, ParallelConfig(bottleneck=50, input="residual")) == 1262


def test_around_a_linear_map_that_changes_the_width_it_reads_the_maps_input():
    site = at("layer.0.ffn.up", "x", 12, 20)
    adapter = filled(ParallelConfig(bottleneck=5, input="normed"), site)
    assert adapter.leave(torch.randn(2, 3, 12), torch.randn(2, 3, 20), Context()).shape == (
        2,
        3,
        20,
    )
    with pytest.raises(SiteError, match=r"reads the residual stream \(input=own_ln\)"):
        ParallelAdapter(site, ParallelConfig(), None)


def test_a_convolution_is_refused():
    site = at("layer.0.conv.pw1", "x", 12, 24, "Conv1d", ConvShape(1))
    with pytest.raises(SiteError, match=r"works on frames, but .* is a Conv1d"):
        ParallelAdapter(site, ParallelConfig(input="normed"), None)


def test_residual_is_the_stream_and_normed_is_the_norms_output(load, clips):
    got = {}
    for read in ("residual", "normed"):
        encoder = load()
        attach(encoder, "parallel", roles=["layer.0.ffn"], config={"input": read})
        adapter = encoder.followers[0].adapters()[0]
        adapter.bottleneck.down.register_forward_pre_hook(
            lambda module, args, read=read: got.setdefault(read, args[0])
        )
        with torch.no_grad():
            encoder.encode(clips)
    norm: nn.LayerNorm = load().model.layers[0].final_layer_norm
    torch.testing.assert_close(norm(got["residual"]), got["normed"], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(got["residual"], got["normed"])
