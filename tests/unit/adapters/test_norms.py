from __future__ import annotations

import pytest
import torch
from torch import nn

from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.merge import merge
from speechadapt.adapters.norms import NormAdapter, norm_sites, weight_delta
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError


def roles(encoder, choice: str, patterns: list[str]) -> list[str]:
    return [site.role for site in norm_sites(encoder, choice, encoder.select(patterns))]


@pytest.mark.parametrize(
    ("family", "patterns", "wanted"),
    [
        ("whisper", ["layer.0.attn.q"], ["layer.0.norm.attn"]),
        ("whisper", ["layer.1.ffn"], ["layer.1.norm.ffn"]),
        ("whisper", ["layer.1.end"], ["layer.1.norm.ffn"]),
        ("ast", ["layer.0.ffn.up", "layer.0.attn"], ["layer.0.norm.attn", "layer.0.norm.ffn"]),
        ("w2v_bert", ["layer.0.ffn"], ["layer.0.norm.ffn1", "layer.0.norm.ffn2"]),
        ("w2v_bert", ["layer.1.conv.pw1"], ["layer.1.norm.conv"]),
        ("w2v_bert", ["layer.1.end"], ["layer.1.norm.final"]),
    ],
)
def test_adapted_means_the_norms_that_feed_what_is_adapted(load, family, patterns, wanted):
    assert roles(load(family), "adapted", patterns) == wanted


def test_all_means_every_norm_and_the_encoders_last_one_once(load):
    assert roles(load("whisper"), "all", ["attn.q"]) == [
        "layer.0.norm.attn",
        "layer.0.norm.ffn",
        "layer.1.norm.attn",
        "layer.1.norm.ffn",
        "encoder",
    ]
    conformer = roles(load("w2v_bert"), "all", ["attn.q"])
    assert len(conformer) == 12
    assert "encoder" not in conformer  # its last norm is the last layer's closing one


def test_what_the_method_adapts_itself_is_refused(load):
    with pytest.raises(SiteError, match=r"method itself adapts 'layer\.0\.norm\.attn'"):
        roles(load(), "all", ["norm.attn"])
    with pytest.raises(ConfigError, match=r"'adaptedd' was asked for\. Did you mean adapted"):
        roles(load(), "adaptedd", ["attn.q"])


def test_gain_and_shift_are_those_of_the_norms_own_affine(load):
    site = load().site("layer.0.norm.attn")
    norm, x = nn.LayerNorm(32), torch.randn(2, 5, 32)
    adapter = NormAdapter(site)
    with torch.no_grad():
        assert torch.equal(adapter.leave(x, norm(x), Context()), norm(x))
        for tensor in (*norm.parameters(), *adapter.parameters()):
            tensor.copy_(torch.randn(32))
        wanted = adapter.leave(x, norm(x), Context())
        delta = weight_delta(adapter, norm)
        norm.weight += delta.weight
        norm.bias += delta.bias
        torch.testing.assert_close(norm(x), wanted)


def test_two_attachments_train_the_same_norms_side_by_side(load, clips, move):
    encoder = load("w2v_bert")
    with torch.no_grad():
        base = encoder.encode(clips)[0]
        outputs = {}
        for name in ("first", "second"):
            move(attach(encoder, "lora", name=name, train_norms="all"))
        for names in ("first", "second", ("first", "second"), None):
            with active(encoder, names):
                outputs[names] = encoder.encode(clips)[0]
        assert torch.equal(outputs[None], base)
        with active(encoder, ["first", "second", None]):
            mixed = encoder.encode(clips)[0]
        torch.testing.assert_close(mixed[0], outputs["first"][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(mixed[1], outputs["second"][1], rtol=0, atol=1e-5)
        for name in ("first", "second"):
            merge(encoder, name)
        torch.testing.assert_close(
            encoder.encode(clips)[0], outputs["first", "second"], rtol=0, atol=3e-5
        )
        remove(encoder, "first")
        torch.testing.assert_close(encoder.encode(clips)[0], outputs["second"], rtol=0, atol=1e-5)
        remove(encoder, "second")
        assert torch.equal(encoder.encode(clips)[0], base)
