"""Holding out a part of one's own recordings, by whole speakers where they are known.

What is held out hangs on the ids and lengths of the recordings alone: the same recordings are
always divided in the same way, whatever the seed of a run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from speechadapt.core.seed import derive_seed
from speechadapt.data.manifest import Utterance


@dataclass(frozen=True)
class Held:
    """Recordings in two parts.

    Args:
        kept: What is left, in the order it came.
        held: What was held out, in the order it came.
        by: `speaker` where nobody speaks in both parts, or else `recording`.
    """

    kept: tuple[Utterance, ...]
    held: tuple[Utterance, ...]
    by: Literal["speaker", "recording"]


def hold_out(
    items: Sequence[Utterance], wanted_s: float, most_s: float, *, by_speaker: bool = True
) -> Held:
    """Hold out about so many seconds; at least one recording is on either side.

    Whole speakers are held out if every recording names one and there are speakers that fit into
    `most_s`; else single recordings are.

    Args:
        items: Recordings of known length, at least two.
        wanted_s: Seconds to hold out.
        most_s: Most seconds that whole speakers may take.
        by_speaker: Whether to look at speakers at all.
    """
    chosen: set[str] = set()
    if by_speaker and all(item.speaker for item in items):
        chosen = _speakers(items, wanted_s, most_s)
    if chosen:
        ids = {item.id for item in items if item.speaker in chosen}
    else:
        ids = _recordings(items, wanted_s)
    return Held(
        kept=tuple(item for item in items if item.id not in ids),
        held=tuple(item for item in items if item.id in ids),
        by="speaker" if chosen else "recording",
    )


def seconds_of(items: Sequence[Utterance]) -> float:
    """Return the length of recordings together; what is of unknown length counts nothing."""
    return float(sum(item.duration or 0.0 for item in items))


def speakers_of(items: Sequence[Utterance]) -> set[str] | None:
    """Return the speakers of recordings; None where one of them names none."""
    names = {item.speaker for item in items}
    return None if None in names or "" in names else {str(name) for name in names}


def _speakers(items: Sequence[Utterance], wanted_s: float, most_s: float) -> set[str]:
    lengths: defaultdict[str, float] = defaultdict(float)
    for item in items:
        lengths[str(item.speaker)] += item.duration or 0.0
    chosen: set[str] = set()
    taken = 0.0
    for name in sorted(lengths, key=lambda name: derive_seed("hold out", name)):
        if taken >= wanted_s or len(chosen) == len(lengths) - 1:
            break
        if taken + lengths[name] <= most_s:
            chosen.add(name)
            taken += lengths[name]
    return chosen


def _recordings(items: Sequence[Utterance], wanted_s: float) -> set[str]:
    chosen: set[str] = set()
    taken = 0.0
    for item in sorted(items, key=lambda item: derive_seed("hold out", item.id))[:-1]:
        if chosen and taken + (item.duration or 0.0) / 2 > wanted_s:
            break
        chosen.add(item.id)
        taken += item.duration or 0.0
    return chosen
