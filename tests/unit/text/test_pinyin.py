from __future__ import annotations

import re

import pytest

from speechadapt.core.errors import DataError
from speechadapt.text.pinyin import lexicon, to_pinyin


def test_characters_become_toneless_syllables() -> None:
    assert to_pinyin("抄写") == "chao xie"
    assert to_pinyin("小心翼翼") == "xiao xin yi yi"
    assert to_pinyin("女绿") == "nv lv"  # the u with two dots
    assert to_pinyin("") == ""


def test_a_word_is_read_otherwise_than_its_characters() -> None:
    assert to_pinyin("行") == "xing"
    assert to_pinyin("行列") == "hang lie"
    assert to_pinyin("会计") == "kuai ji"
    # the longest word counts, wherever it stands
    assert to_pinyin("我会会计") == "wo hui kuai ji"
    assert to_pinyin("行") == " ".join(lexicon()["行"])


def test_a_word_at_the_end_is_not_read_past_it() -> None:
    assert to_pinyin("人行列") == "ren hang lie"
    assert to_pinyin("各行各业") == "ge hang ge ye"


def test_other_letters_stay_and_are_words_of_their_own() -> None:
    assert to_pinyin("用wifi 上") == "yong wifi shang"
    assert to_pinyin("one two") == "one two"


def test_an_unknown_character_is_named() -> None:
    with pytest.raises(DataError, match=r"none for 龘\. Write these in pinyin"):
        to_pinyin("龘人")


def test_every_entry_has_as_many_syllables_as_characters() -> None:
    entries = lexicon()
    assert sum(len(entry) == 1 for entry in entries) == 3755
    for entry, syllables in entries.items():
        assert len(entry) == len(syllables), entry
        assert all(re.fullmatch("[a-z]+", one) for one in syllables), entry
    single = {entry: reading for entry, (reading, *_) in entries.items() if len(entry) == 1}
    regular = [
        entry
        for entry, reading in entries.items()
        if len(entry) > 1 and list(reading) == [single[letter] for letter in entry]
    ]
    assert not regular  # a word stands there because it is read otherwise
