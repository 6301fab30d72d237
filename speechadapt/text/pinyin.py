"""Mandarin in toneless pinyin, from a lexicon that ships with the package.

`pinyin_zh.tsv` holds the most usual reading of the 3,755 characters of GB 2312's first level, and
words of two to four of them in which some character is read otherwise. The readings are pypinyin's
(version 0.55.0, MIT licence; https://github.com/mozillazg/python-pinyin), tone marks taken off and
the u with two dots written v, so that the letters are those of the English alphabet.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from itertools import groupby

from speechadapt.core.errors import DataError

LANGUAGE = "zh-Latn-pinyin"

_LEXICON = "pinyin_zh.tsv"


def to_pinyin(text: str) -> str:
    """Write Mandarin in toneless pinyin, one word per syllable.

    Words of the lexicon go before single characters, longer ones first, from left to right. What
    is not a Chinese character stays as it is.

    Args:
        text: Chinese characters, other letters between them.

    Raises:
        DataError: The lexicon lacks characters of the text.

    Returns:
        Syllables and words, separated by single spaces.
    """
    pieces: list[str] = []
    for chinese, letters in groupby(text, _is_chinese):
        piece = "".join(letters)
        pieces += _syllables(piece) if chinese else piece.split()
    return " ".join(pieces)


def _is_chinese(letter: str) -> bool:
    return "\u3400" <= letter <= "\u9fff" or "\U00020000" <= letter <= "\U0003ffff"


def _syllables(text: str) -> list[str]:
    known = lexicon()
    unknown = sorted({letter for letter in text if letter not in known})
    if unknown:
        raise DataError(
            f"pinyin of '{text}' was asked for, but the lexicon has {len(known):,} entries and "
            f"none for {' '.join(unknown)}. Write these in pinyin in the transcript."
        )
    found: list[str] = []
    longest = max(map(len, known))
    place = 0
    while place < len(text):
        length = next(n for n in range(longest, 0, -1) if text[place : place + n] in known)
        length = min(length, len(text) - place)
        found += known[text[place : place + length]]
        place += length
    return found


@cache
def lexicon() -> dict[str, tuple[str, ...]]:
    """Return the syllables of every character and word of the lexicon."""
    lines = resources.files(__package__).joinpath(_LEXICON).read_text(encoding="utf-8").splitlines()
    entries: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if line.startswith("#"):
            continue
        reading, _, written = line.partition("\t")
        syllables = tuple(reading.split())
        for entry in written if len(syllables) == 1 else [written]:
            entries[entry] = syllables
    return entries
