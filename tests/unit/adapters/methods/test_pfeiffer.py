"""The adapter at the end of a layer against the formula other tools were measured to compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.pfeiffer import METHOD, PfeifferAdapter, PfeifferConfig
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.sites import Site

SPAN = Site("layer.0.ffn", "fc1", "fc2", 16, 16, tap="final_layer_norm")
END = Site("layer.0.end", "layers.0", "layers.0", 16, 16, kind="WhisperEncoderLayer")
CONFIG = PfeifferConfig(bottleneck=4, initial="normal")
CONTEXT = Context()


def _branch(adapter: PfeifferAdapter, read: Tensor) -> Tensor:
    block = adapter.bottleneck
    down = torch.relu(read @ block.down.weight.T + block.down.bias)
    return down @ block.up.weight.T + block.up.bias


def test_at_a_feed_forward_it_reads_output_plus_residual_and_adds_to_the_output() -> None:
    adapter = PfeifferAdapter(SPAN, CONFIG)
    h, y = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    assert adapter.taps
    torch.testing.assert_close(adapter.leave(h, y, CONTEXT), y + _branch(adapter, y + h))


def test_at_the_end_of_a_layer_it_computes_the_same_layer() -> None:
    inside, at_end = PfeifferAdapter(SPAN, CONFIG), PfeifferAdapter(END, CONFIG)
    at_end.load_state_dict(inside.state_dict())
    h, y = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    assert not at_end.taps
    layer_inside = h + inside.leave(h, y, CONTEXT)
    # at the end of a layer x is the layer's input, which plays no part
    layer_at_end = at_end.leave(torch.full_like(h, 9.0), h + y, CONTEXT)
    torch.testing.assert_close(layer_at_end, layer_inside)


def test_reading_the_output_alone_needs_no_tap() -> None:
    adapter = PfeifferAdapter(replace(SPAN, tap=None), replace(CONFIG, input="output"))
    x, y = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    assert not adapter.taps
    torch.testing.assert_close(adapter.leave(x, y, CONTEXT), y + _branch(adapter, y))


@pytest.mark.parametrize("read", ["stream", "output"])
def test_adding_to_the_stream_counts_the_residual_once_more(read: str) -> None:
    adapter = PfeifferAdapter(SPAN, replace(CONFIG, input=read, residual="stream"))
    h, y = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    seen = y + h if read == "stream" else y
    assert adapter.taps
    torch.testing.assert_close(adapter.leave(h, y, CONTEXT), y + h + _branch(adapter, seen))


@pytest.mark.parametrize("site", [SPAN, END])
def test_the_default_start_is_exactly_the_identity(site: Site) -> None:
    adapter = PfeifferAdapter(site, PfeifferConfig(bottleneck=4))
    y = torch.randn(2, 3, 16)
    assert torch.equal(adapter.leave(torch.randn(2, 3, 16), y, CONTEXT), y)


def test_adapterhubs_start_has_its_spread() -> None:
    wide = replace(END, dim_in=256, dim_out=256)
    block = PfeifferAdapter(wide, PfeifferConfig(bottleneck=64, initial="normal")).bottleneck
    assert block.down.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert block.up.weight.std().item() == pytest.approx(0.02, rel=0.03)


def test_the_closed_form_counts_every_parameter() -> None:
    for config in (CONFIG, replace(CONFIG, own_norm=True)):
        counted = sum(parameter.numel() for parameter in PfeifferAdapter(END, config).parameters())
        assert METHOD.parameters(END, config) == counted


def test_the_end_of_a_layer_has_no_sublayer_output_to_read() -> None:
    for config in (replace(CONFIG, input="output"), replace(CONFIG, residual="stream")):
        with pytest.raises(ConfigError, match=r"asked for at 'layer\.0\.end'"):
            PfeifferAdapter(END, config)


def test_a_site_without_a_tap_is_refused() -> None:
    with pytest.raises(SiteError, match=r"reads the residual stream, which 'layer\.0\.attn\.q'"):
        PfeifferAdapter(Site("layer.0.attn.q", "q", "q", 16, 16), CONFIG)


@pytest.mark.parametrize(
    ("family", "last"), [("whisper", "ffn"), ("w2v_bert", "ffn2"), ("ast", "ffn")]
)
def test_in_every_encoder_the_end_and_the_last_feed_forward_are_the_same_place(
    tiny_folder, signal, family: str, last: str
) -> None:
    encoder = load_encoder(tiny_folder(family))
    inside = attach(encoder, "pfeiffer", name="inside", config=CONFIG, roles=[last])
    at_end = attach(encoder, "pfeiffer", name="at_end", config=CONFIG)
    with torch.no_grad():
        for here, there in zip(inside.parameters(), at_end.parameters(), strict=True):
            there.copy_(here.add_(0.1))
        frames = {}
        for name in ("inside", "at_end", None):
            with active(encoder, name):
                frames[name], _ = encoder.encode([signal(12000)])
    # two layers of random weights multiply the difference that rounding makes
    torch.testing.assert_close(frames["at_end"], frames["inside"], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(frames["inside"], frames[None], atol=1e-2)
