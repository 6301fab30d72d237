from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from speechadapt.core.errors import DataError
from speechadapt.decoders.ctc.beam import PrefixBeamSearch
from speechadapt.decoders.ctc.ngram import NgramModel, train_ngram
from speechadapt.text.alphabet import Alphabet

ALPHABET = Alphabet(("<pad>", "|", "a", "b"))
NEVER = -math.inf


def random_log_probs(frames: int, seed: int, sharpness: float = 2.0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(frames, len(ALPHABET))) * sharpness
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def brute_force(log_probs: np.ndarray, alphabet: Alphabet = ALPHABET) -> dict[str, float]:
    """Probability of each text, by summing over every one of the paths."""
    totals: dict[str, float] = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        probability = math.exp(sum(log_probs[frame, label] for frame, label in enumerate(path)))
        totals[alphabet.decode(path)] += probability
    return totals


def exhaustive(**options) -> PrefixBeamSearch:
    return PrefixBeamSearch(ALPHABET, beam_size=100_000, prune_logprob=-1e9, **options)


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_text_has_the_probability_of_all_its_paths(frames, seed):
    log_probs = random_log_probs(frames, seed)
    expected = brute_force(log_probs)
    found = {
        ALPHABET.decode(beam.labels, collapse=False): beam.log_prob
        for beam in exhaustive().search(log_probs)
    }
    assert found.keys() == expected.keys()
    for text, probability in expected.items():
        assert found[text] == pytest.approx(math.log(probability), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_a_small_beam_finds_the_best_text(seed):
    log_probs = random_log_probs(5, seed)
    expected = brute_force(log_probs)
    best = PrefixBeamSearch(ALPHABET, beam_size=40, prune_logprob=-20.0, beta=0.0).search(log_probs)
    text = ALPHABET.decode(best[0].labels, collapse=False)
    assert text == max(expected, key=expected.__getitem__)


def test_many_weak_paths_beat_the_single_best_path():
    # The best path is all blanks (0.36); "a" is spelled by three paths worth 0.64 together.
    row = np.log([0.6, 1e-12, 0.4, 1e-12])
    log_probs = np.stack([row, row])
    assert log_probs.argmax(-1).tolist() == [0, 0]
    best = PrefixBeamSearch(ALPHABET, beta=0.0).search(log_probs)[0]
    assert best.labels == (2,)
    assert math.exp(best.log_prob) == pytest.approx(0.64)


def test_a_doubled_letter_needs_a_blank_between():
    a, blank = np.log([1e-9, 1e-9, 1, 1e-9]), np.log([1, 1e-9, 1e-9, 1e-9])
    search = PrefixBeamSearch(ALPHABET, beta=0.0)
    assert search.search(np.stack([a, a, a]))[0].labels == (2,)
    assert search.search(np.stack([a, blank, a]))[0].labels == (2, 2)


def test_labels_of_a_beam_have_no_delimiter_at_the_ends_and_none_doubled():
    for beam in exhaustive().search(random_log_probs(5, 7)):
        text = "".join(ALPHABET.symbols[label] for label in beam.labels)
        assert "||" not in text
        assert text.strip("|") == text


@pytest.mark.parametrize("seed", range(5))
def test_the_score_adds_language_model_and_word_bonus_to_the_brute_force_probability(seed):
    model = train_ngram(["a b", "a a", "b", "ab a"], order=2)
    log_probs = random_log_probs(4, seed)
    expected = {
        text: math.log(probability) + 0.7 * model.score(text) + 0.3 * len(text.split())
        for text, probability in brute_force(log_probs).items()
    }
    found = exhaustive(language_model=model, alpha=0.7, beta=0.3).search(log_probs)
    assert len(found) == len(expected)
    for beam in found:
        text = ALPHABET.decode(beam.labels, collapse=False)
        assert beam.score == pytest.approx(expected[text], abs=1e-9)
    best = ALPHABET.decode(found[0].labels, collapse=False)
    assert best == max(expected, key=expected.__getitem__)


@pytest.mark.parametrize("seed", range(5))
def test_a_word_list_leaves_just_the_texts_made_of_its_words(seed):
    log_probs = random_log_probs(5, seed)
    words = {"ab", "b"}
    expected = {
        text: probability
        for text, probability in brute_force(log_probs).items()
        if set(text.split()) <= words
    }
    beams = exhaustive(word_list=words, beta=0.0).search(log_probs)
    found = {
        ALPHABET.decode(beam.labels, collapse=False): beam.log_prob
        for beam in beams
        if beam.complete
    }
    assert found.keys() == expected.keys()
    for text, probability in expected.items():
        assert found[text] == pytest.approx(math.log(probability), abs=1e-9)
    assert beams[0].complete


def test_a_word_the_model_excludes_is_costly_but_finite():
    model = NgramModel(1, {("a",): math.log(0.5), ("</s>",): math.log(0.5)}, {})
    beams = exhaustive(language_model=model, alpha=1.0).search(random_log_probs(2, 0))
    assert all(math.isfinite(beam.score) for beam in beams)


def test_a_listed_word_the_alphabet_cannot_write_is_refused():
    with pytest.raises(DataError, match=r"cannot write \['z'\] of the listed word 'az'"):
        PrefixBeamSearch(ALPHABET, word_list=["az"])


def test_pruned_labels_only_lower_probabilities():
    log_probs = random_log_probs(5, 3)
    whole = {beam.labels: beam.log_prob for beam in exhaustive().search(log_probs)}
    pruned = PrefixBeamSearch(ALPHABET, beam_size=100_000, prune_logprob=-3.0).search(log_probs)
    assert len(pruned) < len(whole)
    assert all(beam.log_prob <= whole[beam.labels] + 1e-12 for beam in pruned)
