"""Word and character error rates of a corpus: sum of edits over sum of reference units.

The alignment is jiwer's (minimum edit distance, every edit costing 1). Three kinds of items are
kept apart because leaving them out flatters: a missing hypothesis counts as deletions of its whole
reference; an item whose reference is empty (nobody speaks) has no rate, so the words invented for
it are counted beside the rate; an item without a reference is only counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

from speechadapt.text.normalise import Headline, Normaliser, load_normaliser


@dataclass(frozen=True)
class Pair:
    """One item to score.

    Args:
        id: Names the item in reports.
        reference: What was said; empty where nobody speaks, None where nobody wrote it down.
        hypothesis: What was recognised; None where no output exists.
        speaker: Groups items for the interval; None where unknown.
        language: BCP 47 code; None where unknown.
        fields: Anything else about the item (values to group by).
    """

    id: str
    reference: str | None
    hypothesis: str | None
    speaker: str | None = None
    language: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EditCounts:
    """Hits and edits between references and hypotheses; adds up over items.

    Args:
        hits: Units of the reference that were recognised.
        substitutions: Units replaced by another.
        deletions: Units of the reference that are missing.
        insertions: Units of the hypothesis that nobody said.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: EditCounts) -> EditCounts:
        return EditCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def reference(self) -> int:
        """Units in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def edits(self) -> int:
        """All edits together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Edits over reference units, a fraction that can exceed 1; NaN without a reference."""
        return self.edits / self.reference if self.reference else math.nan


@dataclass(frozen=True)
class ItemScore:
    """One scored item.

    Args:
        pair: The item as it came.
        reference: Its normalised reference, never empty.
        hypothesis: Its normalised hypothesis; empty where it is missing.
        words: Edits between words.
        characters: Edits between characters (code points).
    """

    pair: Pair
    reference: str
    hypothesis: str
    words: EditCounts
    characters: EditCounts

    @property
    def missing(self) -> bool:
        """Whether no hypothesis exists."""
        return self.pair.hypothesis is None


@dataclass(frozen=True)
class CorpusScore:
    """The scores of a corpus.

    Args:
        items: Items with a reference that has words, in the order they came.
        words: Edits between words, summed.
        characters: Edits between characters, summed.
        non_speech: Ids of items whose reference is empty, with the words inserted there.
        missing: Items without a hypothesis, those of `non_speech` among them.
        unscored: Items without a reference.
        normalisers: Labels of the normalisers used, with versions.
        scorer: The scorer's name and version.
        headline: The rate to put first: `cer` where every language scored asks for it.
    """

    items: tuple[ItemScore, ...]
    words: EditCounts
    characters: EditCounts
    non_speech: tuple[tuple[str, int], ...] = ()
    missing: int = 0
    unscored: int = 0
    normalisers: tuple[str, ...] = ()
    scorer: str = ""
    headline: Headline = "wer"

    @property
    def wer(self) -> float:
        """Word error rate, a fraction; NaN where no reference has words."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """Character error rate, a fraction; NaN where no reference has words."""
        return self.characters.rate

    @property
    def inserted_in_non_speech(self) -> int:
        """Words invented where nobody speaks; they are in no rate."""
        return sum(words for _, words in self.non_speech)

    @property
    def references(self) -> int:
        """Items with a reference, empty ones among them."""
        return len(self.items) + len(self.non_speech)


@cache
def scorer_label() -> str:
    """Return the scorer's name and installed version, such as `jiwer 4.0.0`."""
    return f"jiwer {metadata.version('jiwer')}"


def score_pairs(
    pairs: Iterable[Pair], normaliser: str = "verbatim", language: str | None = None
) -> CorpusScore:
    """Score a corpus.

    Args:
        pairs: The items.
        normaliser: Name of the normaliser, as `load_normaliser` takes it.
        language: Language of all items; by default each item's own.

    Returns:
        The corpus and its items; the order of items changes no sum.

    Raises:
        CatalogError: Nobody has the normaliser's name.
    """
    spoken: list[tuple[Pair, str, str, Normaliser]] = []
    non_speech: list[tuple[str, int]] = []
    used: dict[str, Normaliser] = {}
    missing = unscored = 0
    for pair in pairs:
        if pair.reference is None:
            unscored += 1
            continue
        normalise = load_normaliser(normaliser, language or pair.language)
        used[normalise.label] = normalise
        missing += pair.hypothesis is None
        reference, hypothesis = normalise(pair.reference), normalise(pair.hypothesis or "")
        if reference:
            spoken.append((pair, reference, hypothesis, normalise))
        else:
            non_speech.append((pair.id, len(hypothesis.split())))
    items = _score_items(spoken)
    return CorpusScore(
        items=items,
        words=sum((item.words for item in items), EditCounts()),
        characters=sum((item.characters for item in items), EditCounts()),
        non_speech=tuple(non_speech),
        missing=missing,
        unscored=unscored,
        normalisers=tuple(sorted(used)) or (load_normaliser(normaliser, language).label,),
        scorer=scorer_label(),
        headline="cer" if used and _all_by_character(used.values()) else "wer",
    )


def group_pairs(pairs: Iterable[Pair], name: str) -> dict[str, list[Pair]]:
    """Sort items by a field: `speaker`, `language` (or `lang`), or one of their `fields`.

    Returns:
        Items by the field's value as text, values in alphabetical order; items that lack the field
        stand under the empty text.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(_field(pair, name), []).append(pair)
    return dict(sorted(groups.items()))


def _field(pair: Pair, name: str) -> str:
    own = {"speaker": pair.speaker, "language": pair.language, "lang": pair.language}
    value = own[name] if name in own else pair.fields.get(name)
    return "" if value is None else str(value)


def _all_by_character(normalisers: Iterable[Normaliser]) -> bool:
    return all(normalise.headline == "cer" for normalise in normalisers)


def _score_items(spoken: Sequence[tuple[Pair, str, str, Normaliser]]) -> tuple[ItemScore, ...]:
    import jiwer

    if not spoken:
        return ()
    words = jiwer.process_words([row[1] for row in spoken], [row[2] for row in spoken])
    characters = jiwer.process_characters(
        [normalise.characters(reference) for _, reference, _, normalise in spoken],
        [normalise.characters(hypothesis) for _, _, hypothesis, normalise in spoken],
    )
    rows = zip(spoken, words.alignments, characters.alignments, strict=True)
    return tuple(
        ItemScore(pair, reference, hypothesis, _count(by_word), _count(by_character))
        for (pair, reference, hypothesis, _), by_word, by_character in rows
    )


def _count(alignment: Iterable[Any]) -> EditCounts:
    counts = dict.fromkeys(("equal", "substitute", "delete", "insert"), 0)
    for chunk in alignment:
        in_reference = chunk.ref_end_idx - chunk.ref_start_idx
        in_hypothesis = chunk.hyp_end_idx - chunk.hyp_start_idx
        counts[chunk.type] += max(in_reference, in_hypothesis)
    return EditCounts(counts["equal"], counts["substitute"], counts["delete"], counts["insert"])
