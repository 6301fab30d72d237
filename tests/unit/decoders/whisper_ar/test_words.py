from __future__ import annotations

import pytest

from speechadapt.decoders.whisper_ar.tiny import tiny_generation, tiny_tokenizer
from speechadapt.decoders.whisper_ar.tokens import read_vocabulary
from speechadapt.decoders.whisper_ar.words import group_words


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = tiny_tokenizer()
    return read_vocabulary(tiny_generation(tokenizer), tokenizer)


def words(vocabulary, text: str, language: str | None = "en") -> list[str]:
    tokens = vocabulary.tokenizer.encode(text, add_special_tokens=False).ids
    grouped = group_words(vocabulary, tokens, language)
    assert sum(count for _, count in grouped) == len(tokens)
    assert "".join(spelling for spelling, _ in grouped) == text
    return [spelling for spelling, _ in grouped]


def test_words_are_split_at_spaces(vocabulary):
    assert words(vocabulary, " turn on the light") == [" turn", " on", " the", " light"]


def test_punctuation_goes_with_the_word_it_touches(vocabulary):
    assert words(vocabulary, ' He said "no", twice.') == [" He", " said", ' "no",', " twice."]


def test_letters_of_several_bytes_stay_whole(vocabulary):
    assert words(vocabulary, " größe über") == [" größe", " über"]


def test_a_script_without_spaces_is_split_at_characters(vocabulary):
    assert words(vocabulary, "你好吗", "zh") == ["你", "好", "吗"]
    assert words(vocabulary, "你好", "en") == ["你好"]


def test_no_tokens_give_no_words(vocabulary):
    assert words(vocabulary, "") == []


def test_bytes_that_spell_no_character_are_kept_as_one_piece(vocabulary):
    tokens = vocabulary.tokenizer.encode("你", add_special_tokens=False).ids[:2]
    assert sum(count for _, count in group_words(vocabulary, tokens, "zh")) == 2
