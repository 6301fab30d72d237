from __future__ import annotations

import math

import torch

from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.selection import Written
from speechadapt.decoders.masked_diffusion.timing import place_words
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary

VOCABULARY = tiny_vocabulary()


def words(*texts: str) -> list[Written]:
    rows = [tuple(VOCABULARY.encode(text)) for text in texts]
    return [
        Written(text, row, (math.log(0.5),) * len(row))
        for text, row in zip(texts, rows, strict=True)
    ]


def test_a_word_lies_where_its_tokens_look(monkeypatch) -> None:
    network = tiny_network(VOCABULARY, 10)
    text = words("a", "bc")

    def looks(self: DiffusionNetwork, tokens: torch.Tensor, condition: object) -> torch.Tensor:
        # start, then five tokens of ten frames each, then the end; padding draws every eye
        scores = torch.zeros(1, len(tokens), 80)
        for row in range(1, len(tokens)):
            scores[0, row, 10 * row - 10 : 10 * row] = 9.0
        scores[:, :, 60:] = 50.0
        return scores

    monkeypatch.setattr(DiffusionNetwork, "attention_scores", looks)
    condition = network.condition(torch.zeros(1, 80, 10), torch.tensor([60]))
    first, second = place_words(network, VOCABULARY, text, condition, 50.0)
    assert (first.text, second.text) == ("a", "bc")
    assert first.start == 0.0
    assert abs(first.end - 20 / 50) <= 3 / 50
    assert first.end == second.start
    assert abs(second.end - 50 / 50) <= 3 / 50
    assert first.probability == 0.5


def test_a_text_as_long_as_the_positions_is_placed_within_the_frames() -> None:
    network = tiny_network(VOCABULARY, 10, positions=6)
    condition = network.condition(torch.randn(1, 9, 10), torch.tensor([7]))
    with torch.no_grad():
        placed = place_words(network, VOCABULARY, words("abc", "defg", "h"), condition, 10.0)
    assert [word.text for word in placed] == ["abc", "defg", "h"]
    assert all(0 <= word.start <= word.end <= 0.7 for word in placed)


def test_no_words_have_no_times() -> None:
    network = tiny_network(VOCABULARY, 10)
    condition = network.condition(torch.randn(1, 9, 10), torch.tensor([7]))
    assert place_words(network, VOCABULARY, [], condition, 10.0) == ()
