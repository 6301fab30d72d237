from __future__ import annotations

import json
import unicodedata
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.core.errors import CatalogError
from speechadapt.text.normalise import NORMALISERS, load_normaliser, policy_of

QUICK = settings(max_examples=80, deadline=None, derandomize=True, database=None)
LANGUAGES = (None, "en", "hi", "ar", "he", "tr", "ca", "zh", "th")


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Don\u2019t STOP\u2014the \u201csmart-mirror\u201d!", "don't stop the smart mirror"),
        ("en", "the dogs' bowl, 'tis rock'n'roll '90s", "the dogs bowl tis rock'n'roll 90s"),
        ("en", "nine eight five and 985", "nine eight five and 985"),
        ("en", "don\u00b4t  \t caf\u0065\u0301\n", "don't caf\u00e9"),
        ("fr", "L\u2019\u00c9TAT c\u2019est \u00ab moi \u00bb", "l'\u00e9tat c'est moi"),
        (
            "hi",
            "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e\u0964",
            "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
        ),
        ("ta", "\u0baa\u0bbe\u0b9f\u0bb2\u0bcd!", "\u0baa\u0bbe\u0b9f\u0bb2\u0bcd"),
        (
            "ar",
            "\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f\u064c",
            "\u0645\u062d\u0645\u062f",
        ),
        ("ar", "\u0623\u0631\u0628\u0639\u0640\u0640\u0629", "\u0623\u0631\u0628\u0639\u0629"),
        ("tr", "I\u015eIK \u0130\u015f", "\u0131\u015f\u0131k i\u015f"),
        ("ca", "col\u00b7legi", "col\u00b7legi"),
        ("en", "col\u00b7legi", "col legi"),
        ("en", "1\ufe0f\u20e3 \u2764\ufe0f ok", "1 ok"),
        ("en", "soft\u00adhyphen", "softhyphen"),
    ],
)
def test_verbatim_keeps_the_letters_of_a_language(language: str, text: str, expected: str) -> None:
    assert load_normaliser("verbatim", language)(text) == expected


@given(st.text(), st.sampled_from(LANGUAGES))
@QUICK
def test_verbatim_twice_is_verbatim_once(text: str, language: str | None) -> None:
    normalise = load_normaliser("verbatim", language)
    once = normalise(text)
    assert normalise(once) == once


@given(st.text())
@QUICK
def test_verbatim_leaves_letters_digits_marks_and_single_spaces(text: str) -> None:
    once = load_normaliser("verbatim", "en")(text)
    kinds = {unicodedata.category(character)[0] for character in once if character not in " '"}
    assert kinds <= set("LNM")
    assert once == " ".join(once.split())


@given(st.text(alphabet="abcdefgh ABC'.,-!?1234567890$%()[]<>é"))
@QUICK
def test_whisper_english_equals_transformers_given_the_same_spellings(text: str) -> None:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    from speechadapt.text.normalise_spelling import own_spellings

    theirs = EnglishTextNormalizer(own_spellings())
    assert load_normaliser("whisper", "en")(text) == " ".join(theirs(text).split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Smith's colour, um, isn't grey!", "mister smith is color is not gray"),
        ("nine eight five", "985"),
        ("twenty two dollars", "$22"),
        ("the travelled centre [noise]", "the traveled center"),
    ],
)
def test_whisper_english_folds_numbers_contractions_and_spellings(text: str, expected: str) -> None:
    assert load_normaliser("whisper", "en")(text) == expected


@given(st.text(alphabet=st.characters(exclude_categories=("M", "Cs"))))
@QUICK
def test_whisper_elsewhere_equals_basic_where_no_mark_is_left(text: str) -> None:
    composed = unicodedata.normalize("NFKC", text.lower())
    if any(unicodedata.category(character)[0] == "M" for character in composed):
        return
    assert load_normaliser("whisper", "de")(text) == load_normaliser("basic", "de")(text)


@given(st.text())
@QUICK
def test_basic_equals_transformers(text: str) -> None:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    assert load_normaliser("basic")(text) == " ".join(BasicTextNormalizer()(text).split())


def test_whisper_keeps_vowel_signs_that_basic_drops() -> None:
    text = "\u0928\u092e\u0938\u094d\u0924\u0947"
    assert load_normaliser("whisper", "hi")(text) == text
    assert load_normaliser("basic", "hi")(text) != text


def test_whisper_takes_a_published_spelling_map_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "normalizer.json"
    path.write_text(json.dumps({"colour": "kolor"}))
    normalise = load_normaliser(f"whisper:{path}", "en")
    assert normalise("colour centre") == "kolor centre"
    assert "normalizer.json" in normalise.label
    assert "1 forms" in normalise.label


@pytest.mark.parametrize("name", NORMALISERS)
def test_every_label_names_the_normaliser_and_a_version(name: str) -> None:
    normalise = load_normaliser(name, "en")
    assert normalise.label.startswith(name)
    assert any(character.isdigit() for character in normalise.label)


def test_the_english_label_does_not_pass_our_spellings_for_whispers() -> None:
    assert "speechadapt 1" in load_normaliser("whisper", "en").label


def test_a_special_policy_shows_in_the_label() -> None:
    assert load_normaliser("verbatim", "ar").label == "verbatim 1 [ar]"
    assert load_normaliser("verbatim", "en").label == "verbatim 1"


@pytest.mark.parametrize("name", NORMALISERS)
@pytest.mark.parametrize("language", ["en", "hi"])
def test_a_normaliser_survives_the_way_to_a_worker(name: str, language: str) -> None:
    normalise = load_normaliser(name, language)
    again = ForkingPickler.loads(ForkingPickler.dumps(normalise))
    assert again("Grey \u0928\u093f, nine") == normalise("Grey \u0928\u093f, nine")


@pytest.mark.parametrize("language", ["zh", "zh-TW", "ja", "th"])
def test_scripts_without_spaces_put_characters_first(language: str) -> None:
    normalise = load_normaliser("verbatim", language)
    assert normalise.headline == "cer"
    assert normalise.characters("\u4f60 \u597d") == "\u4f60\u597d"


def test_other_languages_put_words_first_and_count_spaces() -> None:
    normalise = load_normaliser("verbatim", "de")
    assert normalise.headline == "wer"
    assert normalise.characters("a b") == "a b"
    assert policy_of(None).headline == "wer"


@pytest.mark.parametrize("name", ["verbatm", "verbatim:x", ""])
def test_an_unknown_normaliser_names_those_on_offer(name: str) -> None:
    with pytest.raises(CatalogError, match=r"no normaliser .*verbatim"):
        load_normaliser(name)
