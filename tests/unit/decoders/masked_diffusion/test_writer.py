from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from speechadapt.decoders.masked_diffusion import writer
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.decoders.masked_diffusion.vocabulary import Vocabulary
from speechadapt.decoders.masked_diffusion.writer import Predictor, write

OPTIONS = DiffusionOptions(num_candidates=3, num_steps=2)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return tiny_vocabulary()


@pytest.fixture(scope="module")
def network(vocabulary: Vocabulary) -> DiffusionNetwork:
    return tiny_network(vocabulary, 10)


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randn(2, 60, 10, generator=torch.Generator().manual_seed(0))


def test_the_length_head_decides_how_many_positions_are_computed(
    vocabulary: Vocabulary, network: DiffusionNetwork, frames: torch.Tensor
) -> None:
    lengths = torch.tensor([60, 12])

    def positions(**changes: object) -> list[int]:
        options = replace(OPTIONS, **changes)
        with torch.no_grad():
            drafts, _ = write(network, vocabulary, frames, lengths, options)
        return [draft.positions for draft in drafts]

    asked = positions()
    assert asked[1] < asked[0] <= 24
    assert positions(length_head=False) == [24, 24]
    assert positions(max_tokens=6) == [7, min(7, asked[1])]
    assert positions(length_quantile=0.5)[1] < asked[1]


def test_logits_in_parts_choose_the_same(
    vocabulary: Vocabulary,
    network: DiffusionNetwork,
    frames: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = torch.tensor([60, 12])
    with torch.no_grad():
        whole, _ = write(network, vocabulary, frames, lengths, OPTIONS)
        monkeypatch.setattr(writer, "_PLACES_AT_ONCE", 7)
        parts, _ = write(network, vocabulary, frames, lengths, OPTIONS)
    assert [[one.text for one in draft.candidates] for draft in whole] == [
        [one.text for one in draft.candidates] for draft in parts
    ]


def test_forbidden_tokens_are_never_chosen(
    vocabulary: Vocabulary, network: DiffusionNetwork
) -> None:
    tokens = torch.full((1, 2, 9), network.shape.mask_id)
    hidden = torch.ones(1, 2, 9, dtype=torch.bool)
    allowed = [5, 9]
    forbidden = [token for token in range(258) if token not in allowed]
    with torch.no_grad():
        chosen, sure = Predictor(network, None, [9], forbidden)([0], tokens, hidden, 0.0, None)
    assert set(chosen.tolist()) <= set(allowed)
    assert bool((sure <= 0).all())


def test_an_utterance_alone_has_its_own_condition(
    vocabulary: Vocabulary, network: DiffusionNetwork, frames: torch.Tensor
) -> None:
    condition = network.condition(frames, torch.tensor([60, 12]))
    tokens = torch.full((2, 1, 9), network.shape.mask_id)
    hidden = torch.ones(2, 1, 9, dtype=torch.bool)
    with torch.no_grad():
        predict = Predictor(network, condition, [9, 9])
        both = predict([0, 1], tokens, hidden, 0.0, None)[1]
        second = predict([1], tokens[1:], hidden[1:], 0.0, None)[1]
        again = predict([0, 1], tokens, hidden, 0.0, None)[1]
    assert torch.allclose(second, both[9:], atol=1e-5)
    assert torch.equal(again, both)


def test_a_candidate_ends_at_its_first_pad(vocabulary: Vocabulary) -> None:
    text = vocabulary.encode("on it")
    row = [vocabulary.start_id, *text, vocabulary.pad_id, 9, vocabulary.pad_id]
    sure = [0.0, *(-0.1 for _ in text), -0.7, -9.0, -9.0]
    found = writer._candidate(vocabulary, row, sure)
    assert found.text == "on it"
    assert found.end_log_prob == -0.7
    assert found.confidence == pytest.approx(
        (len(text) * math.exp(-0.1) + math.exp(-0.7)) / (len(text) + 1)
    )
    cut = writer._candidate(vocabulary, row[: len(text) + 1], sure[: len(text) + 1])
    assert (cut.text, cut.end_log_prob) == ("on it", None)
