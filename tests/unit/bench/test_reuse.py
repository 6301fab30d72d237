from __future__ import annotations

import pytest
import torch

from speechadapt.bench import reuse
from speechadapt.bench.options import DecoderBench
from speechadapt.bench.random_weights import GEOMETRIES, RandomModel, make
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork


@pytest.fixture(scope="module")
def model() -> RandomModel:
    return make(GEOMETRIES["tiny"], 5.0, "cpu", "float32")


def test_both_ways_write_the_same_and_one_projects_once(
    model: RandomModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    condition = DiffusionNetwork.condition

    def watched(self: DiffusionNetwork, frames: torch.Tensor, lengths: torch.Tensor) -> object:
        rows.append(len(frames))
        return condition(self, frames, lengths)

    monkeypatch.setattr(DiffusionNetwork, "condition", watched)
    options = DecoderBench(num_candidates="3", num_steps="3", rounds=2, batch_size=2)
    found = reuse.compare_reuse(model, options)
    assert len(found) == 1  # the network has fewer positions than either number
    assert found[0]["positions"] == 24
    assert found[0]["same"]
    assert len(found[0]["ratios"]) == 2
    # once for two utterances; or for each step: first one candidate of each, then three
    assert rows == [2, 2, 6, 6, 2, 6, 6, 2]


def test_other_texts_are_told(model: RandomModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*given: object) -> object:
        chosen, sure = recomputed(*given)
        return (chosen + 1) % 250, sure

    recomputed = reuse.Recomputed.__call__
    monkeypatch.setattr(reuse.Recomputed, "__call__", other)
    options = DecoderBench(num_candidates="2", num_steps="2", rounds=1)
    assert not reuse.compare_reuse(model, options)[0]["same"]
