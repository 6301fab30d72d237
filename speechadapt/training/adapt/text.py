"""Texts of any script for a CTC head: how they are written, and the letters they need."""

from __future__ import annotations

from collections.abc import Iterable

from speechadapt.data.manifest import Utterance
from speechadapt.text.alphabet import Alphabet
from speechadapt.text.normalise import load_normaliser
from speechadapt.text.pinyin import LANGUAGE as PINYIN
from speechadapt.text.pinyin import to_pinyin


class Speller:
    """Writes the text of an utterance as it is trained on and scored.

    Args:
        normaliser: Name of a normaliser, as `load_normaliser` takes it.
        language: BCP 47 code of every text; empty takes each utterance's own. `zh-Latn-pinyin`
            writes Chinese characters in toneless pinyin (see `text.pinyin`).

    Raises:
        CatalogError: Nobody has the normaliser's name.
    """

    def __init__(self, normaliser: str = "verbatim", language: str = "") -> None:
        self.normaliser = normaliser
        self.language = language or None
        load_normaliser(normaliser, self.language)

    def __call__(self, item: Utterance) -> str:
        """Return an utterance's text, normalised by the rules of its language.

        Raises:
            DataError: It is to be written in pinyin, and the lexicon lacks some of its characters.
        """
        language = self.language or item.lang
        text = load_normaliser(self.normaliser, language)(item.text or "")
        return to_pinyin(text) if language == PINYIN else text

    def language_of(self, items: Iterable[Utterance]) -> str | None:
        """Return the one language of all utterances, None where they have several or none."""
        if self.language is not None:
            return self.language
        found = {item.lang for item in items}
        return found.pop() if len(found) == 1 else None


def letters_of(texts: Iterable[str]) -> Alphabet:
    """Return the alphabet that can write all texts: blank, word delimiter, letters in order.

    Args:
        texts: Normalised texts.
    """
    letters = {letter for text in texts for letter in text if not letter.isspace()}
    return Alphabet(("<pad>", "|", *sorted(letters - {"|"})))
