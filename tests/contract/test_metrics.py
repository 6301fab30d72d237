"""What every rate of the package owes its reader, whatever the texts and the normaliser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.metrics.report import score_set, to_json
from speechadapt.metrics.wer import Pair, score_pairs
from speechadapt.text.normalise import NORMALISERS, load_normaliser

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None)
DEMO = Path(__file__).parents[2] / "speechadapt" / "demo" / "manifest.jsonl"
SAMPLES = {
    "en": "The grey cat doesn't travel; it costs 9.50!",
    "hi": "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "ar": "\u0623\u0631\u0628\u0639\u0629 \u0627\u062b\u0646\u0627\u0646",
    "zh": "\u4f60\u597d\u4e16\u754c",
    "th": "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a",
    "de": "Gr\u00fc\u00dfe aus K\u00f6ln",
}

every_normaliser = pytest.mark.parametrize("normaliser", NORMALISERS)
every_language = pytest.mark.parametrize("language", SAMPLES)


def references() -> list[Pair]:
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    return [Pair(row["id"], row["text"], row["text"], row["speaker"], row["lang"]) for row in rows]


@every_normaliser
@every_language
def test_a_text_scores_zero_against_itself(normaliser: str, language: str) -> None:
    text = SAMPLES[language]
    score = score_pairs([Pair("x", text, text, language=language)], normaliser)
    assert (score.wer, score.cer) == (0.0, 0.0)


@every_normaliser
@every_language
def test_no_hypothesis_scores_one(normaliser: str, language: str) -> None:
    score = score_pairs([Pair("x", SAMPLES[language], None, language=language)], normaliser)
    assert (score.wer, score.cer, score.missing) == (1.0, 1.0, 1)


@every_normaliser
@every_language
def test_normalising_leaves_some_text_and_single_spaces(normaliser: str, language: str) -> None:
    found = load_normaliser(normaliser, language)(f"  {SAMPLES[language]}\n")
    assert found
    assert found == " ".join(found.split())


@given(st.lists(st.tuples(st.text(max_size=30), st.none() | st.text(max_size=30)), max_size=6))
@QUICK
def test_counts_agree_with_one_another_for_any_text(
    texts: list[tuple[str, str | None]],
) -> None:
    pairs = [Pair(str(n), text, heard) for n, (text, heard) in enumerate(texts)]
    score = score_pairs(pairs)
    assert score.references == len(pairs)
    for item in score.items:
        assert item.words.reference == len(item.reference.split()) > 0
        assert item.words.hits + item.words.substitutions + item.words.insertions == len(
            item.hypothesis.split()
        )
        assert item.characters.reference == len(item.reference)


def test_the_shipped_references_score_zero_against_themselves() -> None:
    scored = score_set("demo", references())
    assert scored.score.words.reference > 0
    assert (scored.wer.low, scored.wer.estimate, scored.wer.high) == (0.0, 0.0, 0.0)


def test_one_wrong_word_in_the_shipped_references_is_one_edit() -> None:
    pairs = references()
    first = pairs[0]
    assert first.reference is not None
    wrong = " ".join([*first.reference.split()[:-1], "wrong"])
    scored = score_set("demo", [Pair(first.id, first.reference, wrong), *pairs[1:]])
    assert scored.score.words.substitutions == scored.score.words.edits == 1


@every_normaliser
def test_every_report_names_normaliser_and_scorer_with_versions(normaliser: str) -> None:
    row = to_json(score_set("demo", references()[:2], normaliser=normaliser))
    assert all(any(character.isdigit() for character in label) for label in row["normalisers"])
    assert row["scorer"].startswith("jiwer ")
