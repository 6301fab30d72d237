"""New sentences from old ones: the values of a sentence's slots drawn anew from all that were said.

A transcript whose row names its slots is taken apart into the words around them; each slot then
takes any value that some row has for it. So a few hundred sentences speak for the thousands that
their grammar allows. Only what the given rows hold goes in; a sentence that comes out may happen to
be one of another split, as it may in speech.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from speechadapt.data.manifest import Utterance

SLOTS = "slots"
_ARTICLES = ("a", "an")
_VOWELS = tuple("aeiou")

# words of the frame, and None where a slot stands, beside the slots' names in order
Frame = tuple[tuple[str | None, ...], tuple[str, ...]]


class Recombiner:
    """Draws sentences that have the frame of a given one.

    Args:
        utterances: Rows whose `slots` map a slot's name to the words it has in the text; rows
            without slots, or whose slots are not found in their text, are passed over.
    """

    def __init__(self, utterances: Iterable[Utterance]) -> None:
        self._frames: dict[str, Frame] = {}
        values: defaultdict[str, set[str]] = defaultdict(set)
        for item in utterances:
            slots = item.extra.get(SLOTS)
            frame = _frame((item.text or "").split(), slots) if isinstance(slots, Mapping) else None
            if frame is None or not frame[1]:
                continue
            self._frames[item.id] = frame
            for name in frame[1]:
                values[name].add(str(item.extra[SLOTS][name]))
        self._values = {name: sorted(found) for name, found in values.items()}

    def __len__(self) -> int:
        """Return how many sentences have a frame."""
        return len(self._frames)

    def draw(self, item: Utterance, random: np.random.Generator) -> str:
        """Return a sentence with the frame of an utterance, or its own text where it has none.

        Every value that a slot has anywhere is as likely as any other; `a` and `an` follow the
        word after them.

        Args:
            item: One of the utterances.
            random: The only source of randomness.
        """
        if item.id not in self._frames:
            return item.text or ""
        words, names = self._frames[item.id]
        following = iter(names)
        written: list[str] = []
        for word in words:
            if word is not None:
                written.append(word)
                continue
            choices = self._values[next(following)]
            value = choices[int(random.integers(len(choices)))].split()
            if written and written[-1] in _ARTICLES:
                written[-1] = "an" if value[0].startswith(_VOWELS) else "a"
            written += value
        return " ".join(written)


def _frame(words: Sequence[str], slots: Mapping[str, object]) -> Frame | None:
    """Return a sentence with its slots cut out; None where one is not found."""
    owner: list[str | None] = [None] * len(words)
    for name, said in sorted(slots.items(), key=lambda pair: -len(str(pair[1]).split())):
        value = str(said).split()
        start = _find(words, owner, value)
        if start is None:
            return None
        owner[start : start + len(value)] = [name] * len(value)
    frame: list[str | None] = []
    names: list[str] = []
    for word, slot in zip(words, owner, strict=True):
        if slot is None:
            frame.append(word)
        elif slot not in names:
            names.append(slot)
            frame.append(None)
    return tuple(frame), tuple(names)


def _find(words: Sequence[str], owner: Sequence[str | None], value: Sequence[str]) -> int | None:
    """Return where a value stands in words that belong to no other slot."""
    for start in range(len(words) - len(value) + 1):
        stop = start + len(value)
        free = all(one is None for one in owner[start:stop])
        if value and free and list(words[start:stop]) == list(value):
            return start
    return None
