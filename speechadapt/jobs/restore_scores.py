"""What a restoration changed, measured without a clean reference: DNSMOS, speaker, words.

Both recordings are heard at 16 kHz, mixed to one channel, in stretches that are cut where the input
is quietest; a score of a recording is the mean over its stretches, weighted by their length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechadapt.audio.io import AudioStream
from speechadapt.audio.reader import Region
from speechadapt.audio.span import Signal
from speechadapt.jobs.listen import cut_recording
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.recognise import Recogniser
from speechadapt.metrics.quality_listener import dnsmos
from speechadapt.metrics.wer import Pair, score_pairs

if TYPE_CHECKING:
    from speechadapt.models.speaker import SpeakerModel

RATE = 16000
_STRETCH_S = 20.0
_SHORTEST_S = 0.5
_DIGITS = 4


@dataclass(frozen=True)
class Judges:
    """Who measures; None or False for what is not measured.

    Args:
        dnsmos: Whether DNSMOS is measured.
        speaker: Compares speakers.
        words: Hears words.
    """

    dnsmos: bool = False
    speaker: SpeakerModel | None = None
    words: Recogniser | None = None

    @property
    def stretch_s(self) -> float:
        """Longest stretch in seconds that all of them can hear."""
        window_s = None if self.words is None else self.words.window_s
        return min(_STRETCH_S, window_s or _STRETCH_S)

    @property
    def any(self) -> bool:
        """Whether anything is measured."""
        return self.dnsmos or self.speaker is not None or self.words is not None

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these judges from others, JSON types only."""
        return {
            "dnsmos": self.dnsmos,
            "speaker": None if self.speaker is None else self.speaker.fingerprint(),
            "words": None if self.words is None else self.words.fingerprint(),
        }


@dataclass
class Verdict:
    """What was measured.

    Args:
        values: What the gate looks at, by name (see `gate.SCORES`).
        shown: The scores as a row gives them.
        before: The words heard in the input; None where nobody listened.
        after: The words heard in the restored recording.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    before: str | None = None
    after: str | None = None


def measure(item: PlanItem, restored: Path, judges: Judges, normaliser: str) -> Verdict:
    """Compare a recording with its restoration.

    Args:
        item: The recording.
        restored: The file made of it.
        judges: Who measures.
        normaliser: Of the words on both sides.
    """
    verdict = Verdict()
    if not judges.any:
        return verdict
    opinions = _Means(), _Means()
    voices: tuple[list[Signal], list[Signal]] = [], []
    texts: tuple[list[str], list[str]] = [], []
    for pair in _stretches(item, restored, judges.stretch_s):
        for side, waveform in enumerate(pair):
            if judges.dnsmos:
                opinions[side].add(dnsmos(waveform, RATE), len(waveform))
            if judges.speaker is not None and len(pair[0]) >= _SHORTEST_S * RATE:
                voices[side].append(judges.speaker.embed(waveform) * np.float32(len(waveform)))
            if judges.words is not None:
                texts[side].append(judges.words.decode_batch([waveform], [item.lang])[0].text)
    if judges.dnsmos:
        _note_opinions(verdict, opinions[0].values(), opinions[1].values())
    if judges.speaker is not None:
        value = _cosine(voices[0], voices[1])
        verdict.values["speaker"] = verdict.shown["speaker"] = value
    if judges.words is not None:
        verdict.before, verdict.after = (" ".join(filter(None, side)) for side in texts)
        verdict.values |= _change_of_words(item.id, verdict.before, verdict.after, normaliser)
        verdict.shown |= {name: verdict.values[name] for name in ("wer", "cer")}
    return verdict


class _Means:
    """Means of scores by name, weighted; a missing one does not count."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def add(self, scores: Any, weight: int) -> None:
        for name, value in scores.items():
            self._weights.setdefault(name, 0.0)
            if value is not None:
                self._sums[name] = self._sums.get(name, 0.0) + value * weight
                self._weights[name] += weight

    def values(self) -> dict[str, float | None]:
        return {
            name: round(self._sums[name] / weight, _DIGITS) if weight else None
            for name, weight in self._weights.items()
        }


def _note_opinions(
    verdict: Verdict, before: dict[str, float | None], after: dict[str, float | None]
) -> None:
    for name, old in before.items():
        new = after.get(name)
        verdict.shown[name] = {"before": old, "after": new}
        change = None if old is None or new is None else round(new - old, _DIGITS)
        verdict.values["dnsmos" if name == "dnsmos_ovrl" else name] = change


def _cosine(before: list[Signal], after: list[Signal]) -> float | None:
    if not before:
        return None
    one, other = (np.sum(side, axis=0) for side in (before, after))
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return round(float(one @ other) / size, _DIGITS) if size > 0 else None


def _change_of_words(
    name: str, before: str, after: str, normaliser: str
) -> dict[str, float | None]:
    score = score_pairs([Pair(name, before, after)], normaliser)
    counts = {"wer": score.words, "cer": score.characters}
    return {key: round(one.rate, _DIGITS) if one.reference else None for key, one in counts.items()}


def _stretches(item: PlanItem, restored: Path, longest_s: float) -> Iterator[tuple[Signal, Signal]]:
    """Yield the same stretches of both recordings."""
    region = Region(item.offset, item.duration)
    before = AudioStream(Path(item.path), RATE, region)
    after = _Portions(AudioStream(restored, RATE))
    for segment in cut_recording(before, RATE, longest_s, None):
        count = len(segment.waveform)
        heard = after.take(count)
        yield segment.waveform, np.pad(heard, (0, count - len(heard)))


class _Portions:
    """A stream from which any number of samples can be taken."""

    def __init__(self, blocks: Iterable[Signal]) -> None:
        self._blocks = iter(blocks)
        self._held: Signal = np.zeros(0, dtype=np.float32)

    def take(self, count: int) -> Signal:
        """Return the next samples; fewer at the end."""
        while len(self._held) < count and (block := next(self._blocks, None)) is not None:
            self._held = np.concatenate([self._held, block])
        taken, self._held = self._held[:count], self._held[count:].copy()
        return taken
