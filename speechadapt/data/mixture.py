"""Two people talking at once: who is laid over whom, and by which recording the one is told.

A mixture is one utterance (what is to be written), another speaker's utterance laid over it, and an
enrolment: other recordings of the first speaker, never the one in the mixture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechadapt.audio.span import Signal
from speechadapt.core.errors import DataError
from speechadapt.data.manifest import Utterance


@dataclass(frozen=True)
class Company:
    """Who goes with an utterance.

    Args:
        other: Index of another speaker's utterance.
        enrolment: Indices of other utterances of the same speaker.
        other_enrolment: Of the other speaker.
    """

    other: int
    enrolment: tuple[int, ...]
    other_enrolment: tuple[int, ...]


class Companies:
    """Draws mixtures of the utterances of at least two speakers.

    Args:
        utterances: Of speakers with two or more of them; others are told by nothing and left out.
        enrolment_s: Enrolments are this long, in seconds, as far as there is so much.

    Attributes:
        members: Indices of the utterances that can be in a mixture.

    Raises:
        DataError: There are not two such speakers.
    """

    def __init__(self, utterances: Sequence[Utterance], enrolment_s: float = 2.0) -> None:
        self._seconds = [item.duration or 0.0 for item in utterances]
        self._speakers = [speaker_of(item) for item in utterances]
        self._enrolment_s = enrolment_s
        own: defaultdict[str, list[int]] = defaultdict(list)
        for index, speaker in enumerate(self._speakers):
            if speaker:
                own[speaker].append(index)
        self._own = {name: rows for name, rows in own.items() if len(rows) > 1}
        self._names = sorted(self._own)
        if len(self._names) < 2:
            raise DataError(
                "mixtures of two speakers were asked for, but of "
                f"{len(utterances)} utterances {len(self._names)} speakers have two or more. Name "
                "corpora whose rows say who speaks."
            )
        self.members = tuple(index for name in self._names for index in self._own[name])

    def draw(self, index: int, random: np.random.Generator) -> Company:
        """Draw who is laid over an utterance; every other speaker is as likely.

        Args:
            index: One of `members`.
            random: The only source of randomness.
        """
        speaker = self._speakers[index]
        others = [name for name in self._names if name != speaker]
        rows = self._own[others[int(random.integers(len(others)))]]
        other = rows[int(random.integers(len(rows)))]
        return Company(other, self._enrolment(index, random), self._enrolment(other, random))

    def _enrolment(self, index: int, random: np.random.Generator) -> tuple[int, ...]:
        rest = [row for row in self._own[self._speakers[index]] if row != index]
        chosen: list[int] = []
        total = 0.0
        for place in random.permutation(len(rest)).tolist():
            chosen.append(rest[place])
            total += self._seconds[rest[place]]
            if total >= self._enrolment_s:
                break
        return tuple(chosen)


def speaker_of(item: Utterance) -> str:
    """Return who speaks, told apart from speakers of the same name in other corpora."""
    return f"{item.extra.get('corpus', '')}/{item.speaker}" if item.speaker else ""


def overlay(
    target: Signal, other: Signal, ratio_db: float, offset: int
) -> tuple[Signal, Signal, Signal]:
    """Lay one voice over another.

    Args:
        target: The one that is to be heard.
        other: The one that is laid over it.
        ratio_db: Power of the target over the other's, each taken over its own samples.
        offset: Samples that the other starts after the target; negative where it starts before.

    Returns:
        The mixture, and both voices as they are in it, all of one length.
    """
    before = max(0, -offset)
    start = max(0, offset)
    length = max(before + len(target), start + len(other))
    voices = np.zeros((2, length), dtype=np.float32)
    voices[0, before : before + len(target)] = target
    gain = _level(target) / max(_level(other), 1e-6) * 10 ** (-ratio_db / 20)
    voices[1, start : start + len(other)] = np.float32(gain) * other
    peak = max(1.0, float(np.abs(voices.sum(0)).max(initial=0.0)))  # nothing is clipped
    voices /= np.float32(peak)
    mixture: Signal = voices.sum(0)
    return mixture, voices[0], voices[1]


def activity(voice: Signal, sample_rate: int, rate_hz: int = 100, below_db: float = 30.0) -> Signal:
    """Return where a voice sounds: 1 where a short stretch is near its loudest one, else 0.

    Args:
        voice: One voice alone.
        sample_rate: In Hz.
        rate_hz: Steps of the result in a second.
        below_db: How far below its loudest stretch a voice may be to count.
    """
    size = max(1, sample_rate // rate_hz)
    count = -(-len(voice) // size)
    padded = np.pad(voice, (0, count * size - len(voice)))
    power = np.square(padded.reshape(count, size), dtype=np.float64).mean(1)
    floor = power.max(initial=0.0) * 10 ** (-below_db / 10)
    sounds: Signal = ((power > floor) & (power > 0)).astype(np.float32)
    return sounds


def _level(signal: Signal) -> float:
    return float(np.sqrt(np.square(signal, dtype=np.float64).mean())) if len(signal) else 0.0
