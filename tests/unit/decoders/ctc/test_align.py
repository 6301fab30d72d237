from __future__ import annotations

import itertools
import math

import pytest
import torch

from speechadapt.core.errors import ShapeError
from speechadapt.decoders.ctc.align import align_words, alignable, frames_needed
from speechadapt.text.alphabet import Alphabet

ALPHABET = Alphabet(("<pad>", "|", "a", "b"))


def spikes(symbols: str, probability: float = 0.9) -> torch.Tensor:
    """One frame per symbol of the text, `_` for the blank, with its probability."""
    rest = (1 - probability) / (len(ALPHABET) - 1)
    table = torch.full((len(symbols), len(ALPHABET)), rest)
    for frame, symbol in enumerate(symbols):
        table[frame, ALPHABET.ids.get(symbol, 0)] = probability
    return table.log()


def test_words_start_and_end_with_their_letters():
    words = align_words(spikes("__a_b_|_aa__"), ALPHABET.encode("ab a"), ALPHABET, 25.0)
    assert [(word.text, word.start, word.end) for word in words] == [
        ("ab", 2 / 25, 5 / 25),
        ("a", 8 / 25, 10 / 25),
    ]
    assert words[0].probability == pytest.approx(0.9, abs=1e-6)


def test_a_letter_repeated_after_a_blank_is_two_letters():
    words = align_words(spikes("a_a"), ALPHABET.encode("aa"), ALPHABET, 10.0)
    assert [(word.text, word.start, word.end) for word in words] == [("aa", 0.0, 0.3)]


def test_a_word_the_model_doubts_has_a_low_probability():
    sure, unsure = spikes("a_|"), spikes("b_", 0.4)
    words = align_words(torch.cat([sure, unsure]), ALPHABET.encode("a b"), ALPHABET, 10.0)
    assert words[0].probability == pytest.approx(0.9, abs=1e-6)
    assert words[1].probability == pytest.approx(0.4, abs=1e-6)


def test_no_labels_give_no_words():
    assert align_words(spikes("__"), [], ALPHABET, 10.0) == ()
    assert align_words(torch.zeros(0, 4), [], ALPHABET, 10.0) == ()


@pytest.mark.parametrize("labels", [[], [2], [2, 2], [2, 2, 2], [2, 3, 2], [2, 2, 3, 3]])
def test_frames_needed_is_the_length_of_the_shortest_path(labels):
    lengths = itertools.count()
    shortest = next(
        frames
        for frames in lengths
        for path in itertools.product(range(4), repeat=frames)
        if [k for k, _ in itertools.groupby(path) if k] == labels
    )
    assert frames_needed(labels) == shortest


def test_alignable_agrees_with_the_loss():
    targets = [[2, 2], [2, 2], [2, 3], []]
    lengths = torch.tensor([2, 3, 2, 0])
    assert alignable(lengths, targets).tolist() == [False, True, True, True]
    losses = [
        torch.nn.functional.ctc_loss(
            spikes("_" * length)[:, None],
            torch.tensor([labels]),
            torch.tensor([length]),
            torch.tensor([len(labels)]),
            reduction="sum",
        ).item()
        for length, labels in zip(lengths.tolist()[:3], targets[:3], strict=True)
    ]
    assert [math.isfinite(loss) for loss in losses] == [False, True, True]


def test_alignable_wants_one_target_per_length():
    with pytest.raises(ShapeError, match="2 lengths need as many targets, got 1"):
        alignable(torch.tensor([1, 2]), [[2]])
