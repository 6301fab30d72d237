from __future__ import annotations

import pytest
import torch

from speechadapt.bench.options import DecoderBench
from speechadapt.bench.random_weights import (
    GEOMETRIES,
    RandomModel,
    make,
    random_settings,
    random_sides,
)


@pytest.fixture(scope="module")
def model() -> RandomModel:
    return make(GEOMETRIES["tiny"], 5.0, "cpu", "float32")


@torch.inference_mode()
def test_every_side_writes_what_it_is_told(model: RandomModel) -> None:
    options = DecoderBench(num_candidates="1,3", num_steps="2", selections="mbr")
    sides = random_sides(model, 7, random_settings(options, [True, False]))
    assert [one.settings["decoder"] for one in sides] == [
        *(["whisper_ar"] * 3),
        "ctc",
        *(["masked_diffusion"] * 4),
    ]
    noise = [torch.randn(24000), torch.randn(24000)]
    frames, lengths = model.encoder.encode(noise)
    found = [one.decode(frames, lengths) for one in sides]
    for row in found[0] + found[1] + found[2]:
        assert len(row.details["token_probabilities"]) == 7
    assert [row.tokens for row in found[1]] == [row.tokens for row in found[0]]
    # 1.5 s at 5 tokens a second: 8 are expected, then the room for doubt, the start and the end
    assert 10 <= found[4][0].details["positions"] < 24
    assert found[6][0].details["positions"] == 24


def test_the_length_head_expects_the_rate_asked_for(model: RandomModel) -> None:
    head = model.diffusion.length_head
    assert head is not None
    for seconds in (1, 2):
        frames = torch.randn(1, 50 * seconds, 32)
        counts = head(frames, torch.tensor([50 * seconds])).exp()[0]
        assert int(counts.argmax()) == 5 * seconds


def test_weights_are_the_same_again(model: RandomModel) -> None:
    again = make(GEOMETRIES["tiny"], 5.0, "cpu", "float32")
    for one, other in ((model.diffusion, again.diffusion), (model.whisper, again.whisper)):
        values = other.state_dict()
        assert all(torch.equal(value, values[name]) for name, value in one.state_dict().items())


def test_the_paper_s_sizes_are_those_it_states() -> None:
    with torch.device("meta"):
        from speechadapt.bench.random_weights import _diffusion_shape
        from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork

        network = DiffusionNetwork(_diffusion_shape(GEOMETRIES["paper"]))
    core = [
        part.numel()
        for name, part in network.named_parameters()
        if ".cross" not in name and ".norm_cross" not in name and "length_head" not in name
    ]
    embeddings = network.embed.weight.numel() + network.head.weight.numel()
    assert sum(core) - embeddings == pytest.approx(169.9e6, rel=1e-3)
