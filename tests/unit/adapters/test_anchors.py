from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.anchors import anchors_of, encode_chunks
from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.second_attention import RECORDING
from speechadapt.core.errors import ConfigError


@pytest.fixture
def chunks(signal):
    return [signal(6000, seed) for seed in range(4)] + [signal(3500, 9)]


@pytest.mark.parametrize("family", ["whisper", "w2v_bert"])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_chunks_in_batches_are_as_chunks_in_one_batch(load, move, chunks, family, rows) -> None:
    encoder = load(family)
    move(attach(encoder, "anchor_attention"), 0.1)
    with torch.no_grad(), active(encoder, "anchor_attention", {RECORDING: ["a"] * 5}):
        whole, lengths = encoder.encode(chunks)
    found = encode_chunks(encoder, "anchor_attention", chunks, rows)
    for row, frames in enumerate(found):
        expected = whole[row : row + 1, : int(lengths[row])]
        torch.testing.assert_close(frames, expected, rtol=0, atol=1e-4)
    alone = encode_chunks(encoder, "anchor_attention", chunks[1:2])[0]
    assert not torch.allclose(alone, found[1], atol=1e-2)


def test_anchors_are_forgotten_at_the_end_of_the_block(load, move, chunks) -> None:
    encoder = load()
    handle = attach(encoder, "anchor_attention")
    move(handle, 0.1)
    anchors = anchors_of(handle)

    @torch.no_grad()
    def second(first: int) -> torch.Tensor:
        for clip in (chunks[first], chunks[2]):
            with active(encoder, "anchor_attention", {RECORDING: ["a"]}):
                found = encoder.encode([clip])[0]
        return found

    forgotten = second(0)
    with anchors.remembering():
        one = second(0)
        assert torch.equal(second(1), one)  # the first of the recording stays its anchor
        assert anchors.remembers
    with anchors.remembering():
        other = second(1)
    assert not anchors.remembers
    assert not torch.allclose(one, other, atol=1e-3)
    assert not torch.allclose(one, forgotten, atol=1e-3)
    assert torch.equal(second(1), forgotten)


def test_another_method_has_no_anchors(load) -> None:
    handle = attach(load(), "lora", config={"rank": 2})
    with pytest.raises(ConfigError, match="'lora', which is a lora"):
        anchors_of(handle)
