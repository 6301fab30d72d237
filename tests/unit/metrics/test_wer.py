from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.core.errors import CatalogError
from speechadapt.metrics.wer import (
    EditCounts,
    Pair,
    group_pairs,
    score_pairs,
    scorer_label,
)

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SENTENCES = st.lists(st.sampled_from("one two three four five six".split()), min_size=1).map(
    " ".join
)


def pair(reference: str | None, hypothesis: str | None, name: str = "x") -> Pair:
    return Pair(name, reference, hypothesis)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "hits", "substitutions", "deletions", "insertions"),
    [
        ("a b c", "a b c", 3, 0, 0, 0),
        ("a b c", "a x c", 2, 1, 0, 0),
        ("a b c", "a c", 2, 0, 1, 0),
        ("a b c", "a b b c", 3, 0, 0, 1),
        ("a b c", "", 0, 0, 3, 0),
        ("a", "x y z", 0, 1, 0, 2),
        ("a b c d", "b c d e", 3, 0, 1, 1),
        ("the cat sat on the mat", "a cat sat the mat too", 4, 1, 1, 1),
    ],
)
def test_words_are_counted_as_by_hand(
    reference: str, hypothesis: str, hits: int, substitutions: int, deletions: int, insertions: int
) -> None:
    score = score_pairs([pair(reference, hypothesis)])
    assert score.words == EditCounts(hits, substitutions, deletions, insertions)
    edits = substitutions + deletions + insertions
    assert score.wer == pytest.approx(edits / len(reference.split()))


def test_characters_are_counted_as_by_hand_spaces_included() -> None:
    score = score_pairs([pair("ab cd", "abcde")])
    assert score.characters == EditCounts(hits=4, substitutions=0, deletions=1, insertions=1)
    assert score.cer == pytest.approx(2 / 5)


def test_characters_are_counted_without_spaces_where_writing_has_none() -> None:
    spaced = Pair("x", "\u4f60 \u597d\u5417", "\u4f60\u597d \u5417", language="zh")
    score = score_pairs([spaced])
    assert score.cer == 0.0
    assert score.headline == "cer"


def test_one_language_with_spaces_makes_words_the_headline() -> None:
    both = [Pair("x", "\u4f60", "\u4f60", language="zh"), Pair("y", "a", "a", language="en")]
    assert score_pairs(both).headline == "wer"


@given(SENTENCES, SENTENCES)
@QUICK
def test_wer_is_zero_if_and_only_if_the_texts_are_equal(reference: str, hypothesis: str) -> None:
    assert (score_pairs([pair(reference, hypothesis)]).wer == 0) == (reference == hypothesis)


@given(
    st.lists(st.tuples(SENTENCES, st.none() | SENTENCES | st.just("")), min_size=1), st.randoms()
)
@QUICK
def test_the_order_of_items_changes_nothing(
    texts: list[tuple[str, str | None]], order: random.Random
) -> None:
    pairs = [pair(reference, hypothesis) for reference, hypothesis in texts]
    mixed = list(pairs)
    order.shuffle(mixed)
    one, other = score_pairs(pairs), score_pairs(mixed)
    assert (one.words, one.characters, one.missing) == (
        other.words,
        other.characters,
        other.missing,
    )


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1))
@QUICK
def test_the_corpus_rate_is_the_sum_of_edits_over_the_sum_of_words(
    texts: list[tuple[str, str]],
) -> None:
    import jiwer

    score = score_pairs([pair(reference, hypothesis) for reference, hypothesis in texts])
    references, hypotheses = [text for text, _ in texts], [text for _, text in texts]
    assert score.wer == pytest.approx(jiwer.wer(references, hypotheses))
    assert score.cer == pytest.approx(jiwer.cer(references, hypotheses))
    assert score.words.edits == sum(item.words.edits for item in score.items)
    assert score.words.reference == sum(len(text.split()) for text in references)


def test_a_missing_hypothesis_costs_its_whole_reference_and_is_counted() -> None:
    score = score_pairs([pair("a b", "a b"), pair("c d", None)])
    assert score.wer == 0.5
    assert score.words.deletions == 2
    assert score.missing == 1
    assert [item.missing for item in score.items] == [False, True]


def test_an_empty_hypothesis_is_not_a_missing_one() -> None:
    score = score_pairs([pair("a b", "")])
    assert (score.missing, score.wer) == (0, 1.0)


@pytest.mark.parametrize("reference", ["", "   ", "...!"])
def test_words_written_where_nobody_speaks_stay_out_of_the_rate(reference: str) -> None:
    score = score_pairs([pair("a b", "a b"), pair(reference, "thank you all", "noise")])
    assert score.wer == 0.0
    assert score.non_speech == (("noise", 3),)
    assert score.inserted_in_non_speech == 3
    assert score.references == 2


def test_an_item_nobody_transcribed_is_only_counted() -> None:
    score = score_pairs([pair("a", "a"), pair(None, "b")])
    assert (score.wer, score.unscored, score.references) == (0.0, 1, 1)


def test_a_corpus_without_words_has_no_rate() -> None:
    score = score_pairs([pair("", "")])
    assert math.isnan(score.wer)
    assert math.isnan(score.cer)


def test_normalisation_applies_to_both_sides_and_is_named() -> None:
    score = score_pairs([pair("Don\u2019t, Stop!", "don't stop")])
    assert score.wer == 0.0
    assert score.normalisers == ("verbatim 1",)
    assert score.items[0].reference == "don't stop"


def test_the_normaliser_changes_what_a_word_is() -> None:
    digits = [Pair("x", "nine eight five", "nine eight four", language="en")]
    assert score_pairs(digits, "verbatim").words.reference == 3
    assert score_pairs(digits, "whisper").words.reference == 1


def test_every_language_is_normalised_its_own_way_unless_one_is_given() -> None:
    pairs = [Pair("x", "a", "a", language="en"), Pair("y", "b", "b", language="ar")]
    assert score_pairs(pairs).normalisers == ("verbatim 1", "verbatim 1 [ar]")
    assert score_pairs(pairs, language="en").normalisers == ("verbatim 1",)


def test_the_scorer_is_named_with_its_version() -> None:
    from importlib.metadata import version

    assert scorer_label() == f"jiwer {version('jiwer')}"
    assert score_pairs([pair("a", "a")]).scorer == scorer_label()


def test_no_items_at_all_score_nothing_and_still_name_the_normaliser() -> None:
    score = score_pairs([])
    assert (score.items, score.normalisers) == ((), ("verbatim 1",))


def test_an_unknown_normaliser_is_refused_even_without_items() -> None:
    with pytest.raises(CatalogError, match="no normaliser 'none'"):
        score_pairs([], "none")


def test_items_are_grouped_by_speaker_language_or_any_field() -> None:
    pairs = [
        Pair("1", "a", "a", speaker="zoe", language="en", fields={"set": "far"}),
        Pair("2", "b", "b", speaker="ann", language="de", fields={"set": "near"}),
        Pair("3", "c", "c", speaker="zoe"),
    ]
    by_speaker = group_pairs(pairs, "speaker")
    assert {name: [one.id for one in group] for name, group in by_speaker.items()} == {
        "ann": ["2"],
        "zoe": ["1", "3"],
    }
    assert list(by_speaker) == ["ann", "zoe"]
    assert list(group_pairs(pairs, "lang")) == ["", "de", "en"]
    assert list(group_pairs(pairs, "set")) == ["", "far", "near"]
