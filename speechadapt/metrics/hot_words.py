"""How well listed words are found, and how often they are written where nobody said them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class HotWordScore:
    """Counts of listed words over a corpus.

    Args:
        items: Utterances.
        said: Times that a listed word was said.
        found: Times that it was written where it was said, as far as counts tell.
        inserted: Times that a listed word was written more often than it was said.
    """

    items: int
    said: int
    found: int
    inserted: int

    @property
    def recall(self) -> float:
        """Share of the listed words said that were written; NaN where none was said."""
        return self.found / self.said if self.said else float("nan")

    @property
    def inserted_per_item(self) -> float:
        """Listed words written without having been said, for each utterance."""
        return self.inserted / self.items if self.items else float("nan")


def score_hot_words(rows: Iterable[tuple[str, str, Sequence[str]]]) -> HotWordScore:
    """Count listed words in references and hypotheses.

    A listed entry may hold several words, which then count where they stand in that order. Texts
    are compared as they are: bring both into one spelling first.

    Args:
        rows: Reference, hypothesis and listed words of each utterance.
    """
    items = said = found = inserted = 0
    for reference, hypothesis, listed in rows:
        items += 1
        for entry in dict.fromkeys(listed):
            wanted = _times(entry, reference)
            written = _times(entry, hypothesis)
            said += wanted
            found += min(wanted, written)
            inserted += max(0, written - wanted)
    return HotWordScore(items, said, found, inserted)


def _times(entry: str, text: str) -> int:
    words, phrase = text.split(), entry.split()
    if not phrase:
        return 0
    places = range(len(words) - len(phrase) + 1)
    return sum(words[at : at + len(phrase)] == phrase for at in places)
