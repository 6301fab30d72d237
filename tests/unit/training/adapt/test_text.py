from __future__ import annotations

import pytest

from speechadapt.core.errors import CatalogError, DataError
from speechadapt.data.manifest import Utterance
from speechadapt.training.adapt.text import Speller, letters_of


def said(text: str, language: str | None) -> Utterance:
    """Return an utterance."""
    return Utterance("a.wav", text=text, lang=language)


def test_any_script_is_written_by_the_rules_of_its_language() -> None:
    spell = Speller()
    # Arabic loses its vowel marks and the lengthening stroke, Turkish has its own lower case
    assert spell(said("مَرْحَبًـا، خَلْف!", "ar")) == "مرحبا خلف"
    assert spell(said("ISPARTA", "tr")) == "\u0131sparta"
    assert spell(said("Weißenburg-Gunzenhausen.", "de")) == "weißenburg gunzenhausen"
    assert spell(said("抄写。", "zh")) == "抄写"
    assert Speller(language="tr")(said("ISPARTA", "en")) == "\u0131sparta"
    assert spell(said("", "en")) == ""


def test_mandarin_is_written_in_pinyin_where_that_is_asked_for() -> None:
    spell = Speller(language="zh-Latn-pinyin")
    assert spell(said("抄写。", "zh")) == "chao xie"
    assert spell.language_of([said("抄写", "zh")]) == "zh-Latn-pinyin"
    assert Speller()(said("行列!OK", "zh-Latn-pinyin")) == "hang lie ok"
    with pytest.raises(DataError, match="the lexicon has"):
        spell(said("龘", "zh"))


def test_one_language_is_told_from_several() -> None:
    spell = Speller()
    assert spell.language_of([said("a", "ar"), said("b", "ar")]) == "ar"
    assert spell.language_of([said("a", "ar"), said("b", "de")]) is None
    assert spell.language_of([said("a", None)]) is None
    assert Speller(language="es").language_of([said("a", None)]) == "es"


def test_an_unknown_normaliser_is_refused_at_once() -> None:
    with pytest.raises(CatalogError, match="Did you mean verbatim"):
        Speller("verbatm")


def test_the_alphabet_is_what_the_texts_need_and_no_more() -> None:
    alphabet = letters_of(["خلف يسار", "ab ba"])
    assert alphabet.symbols[:2] == ("<pad>", "|")
    assert list(alphabet.symbols[2:]) == sorted(set("خلف يسار") - {" "} | {"a", "b"})
    for text in ("خلف يسار", "ab ba"):
        assert alphabet.decode(alphabet.encode(text), collapse=False) == text
    with pytest.raises(DataError, match="cannot write"):
        alphabet.encode("c")
    assert letters_of(["b a", "a b"]) == letters_of(["a", "b"])
