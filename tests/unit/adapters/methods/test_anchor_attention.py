"""Attention to an anchor: through the frozen keys and values, from a query of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.anchors import anchors_of
from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.handle import attachment
from speechadapt.adapters.methods.anchor_attention import METHOD, AnchorAttentionConfig
from speechadapt.adapters.second_attention import RECORDING
from speechadapt.encoders.sites import at

LAST = ["layer.1.attn.*"]


def as_frozen(load, family: str, strength: float = 1.0):
    """Return an encoder whose adapter's output map, at start zero, is the frozen one."""
    encoder = load(family)
    handle = attach(encoder, "anchor_attention", roles=LAST, config=AnchorAttentionConfig(strength))
    frozen = encoder.model.get_submodule(encoder.site("layer.1.attn.out").write)
    out = handle.module.by_role()["layer.1.attn.out"].out
    out.load_state_dict(frozen.state_dict())
    return encoder


def attended(encoder, clips: list[Tensor], recordings: list[str | None]) -> tuple[Tensor, Tensor]:
    """Return the last layer's attention output without the adapter and with it."""
    module = encoder.model.get_submodule(encoder.site("layer.1.attn.out").write)
    seen: list[Tensor] = []
    for names in (None, "anchor_attention"):
        hook = module.register_forward_hook(lambda _, __, output: seen.append(output))
        with torch.no_grad(), active(encoder, names, {RECORDING: recordings}):
            encoder.encode(clips)
        hook.remove()
    return seen[0], seen[1]


@pytest.mark.parametrize("family", ["whisper", "ast"])
def test_with_the_frozen_maps_a_chunk_finds_in_itself_what_the_frozen_attention_finds(
    load, clips, family: str
) -> None:
    """Query copied, keys and values frozen, output map as the frozen one: the same attention."""
    encoder = as_frozen(load, family, strength=0.5)
    before, after = attended(encoder, clips[:1], [None])
    torch.testing.assert_close(after, 1.5 * before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["whisper", "w2v_bert", "ast"])
def test_a_chunk_hears_the_first_of_its_recording_and_no_other(load, signal, family: str) -> None:
    encoder = as_frozen(load, family)
    clips = [signal(5000 + 700 * seed, seed) for seed in range(4)]
    names = ["a", "a", "a", "b"]
    _, whole = attended(encoder, clips, names)
    for changed, heard in ((0, {0, 1, 2}), (1, {1}), (3, {3})):
        others = list(clips)
        others[changed] = signal(len(clips[changed]), 9)
        _, now = attended(encoder, others, names)
        moved = {
            row for row in range(4) if not torch.allclose(now[row], whole[row], rtol=0, atol=1e-3)
        }
        assert moved == heard


def test_the_padding_of_a_short_anchor_is_not_heard(load, signal) -> None:
    encoder = as_frozen(load, "whisper")
    anchor, chunk = signal(4000, 0), signal(9000, 1)
    _, together = attended(encoder, [anchor, chunk], ["a", "a"])
    with anchors_of(attachment(encoder, "anchor_attention")).remembering():
        attended(encoder, [anchor], ["a"])  # alone, where nothing pads it
        _, alone = attended(encoder, [chunk], ["a"])
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)


def test_the_closed_form_is_that_of_a_query_and_an_output() -> None:
    config = AnchorAttentionConfig()
    counts = [
        METHOD.parameters(at(f"layer.0.attn.{name}", name, 8, 8), config)
        for name in ("q", "k", "v", "out")
    ]
    assert counts == [72, 0, 0, 72]
