"""What rows of a training batch are told: who is to be heard, when, or which words to expect.

    enrolment    other recordings of the target speaker of a mixture      condition `memory`
    activity     when the target speaker of a mixture sounds              condition `control`
    words        words of the transcript among words nobody said          condition `memory`

Everything is a function of a row's seed. Conditions travel as tensors of the batch and become
values of `active` on the model's device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from speechadapt.adapters.memory import frame_track, remember_features
from speechadapt.audio.span import Signal
from speechadapt.core.limits import Count, CountOrNone, Interval, NotNegative, Positive, Probability
from speechadapt.core.seed import generator
from speechadapt.data.batch import Row
from speechadapt.data.manifest import Utterance
from speechadapt.data.mixture import Companies, activity, overlay
from speechadapt.encoders.base import Encoder
from speechadapt.training.objective import Batch
from speechadapt.training.speech import SpeechBatches, SpeechRow

Tell: TypeAlias = Literal["enrolment", "activity", "words"]

CONDITION: dict[str, str] = {"enrolment": "memory", "activity": "control", "words": "memory"}
TRACK_HZ = 100
_GAP_S = 0.1  # between the recordings of an enrolment
_ENROLMENT, _TRACK, _WORDS = "enrolment", "track", "words"


@dataclass(frozen=True)
class MixConfig:
    """How two voices are mixed.

    Args:
        ratio_db: Power of the target over the other voice, drawn evenly.
        offset_s: How much earlier or later the other one starts, at most, in seconds.
        enrolment_s: Length of an enrolment in seconds, as far as there are recordings.
    """

    ratio_db: Interval = (-5.0, 5.0)
    offset_s: NotNegative = 0.3
    enrolment_s: Positive = 2.0


@dataclass(frozen=True)
class WordsConfig:
    """Which words a row is told.

    Args:
        distractors: Most words in a list that nobody said.
        said_prob: Chance of each word of the transcript to be in the list.
        common: So many of the most frequent words of training are in no list.
    """

    distractors: Count = 10
    said_prob: Probability = 0.7
    common: CountOrNone = 0


@dataclass(frozen=True)
class Told:
    """A recording with what is told about it.

    Args:
        signal: The recording.
        enrolment: The target speaker elsewhere.
        track: The target's activity, `TRACK_HZ` steps in a second.
        words: Words to expect.
        other: Text of the voice that is laid over; None where there is none.
    """

    signal: Signal
    enrolment: Signal | None = None
    track: Signal | None = None
    words: tuple[str, ...] = ()
    other: str | None = None


def mixed(
    target: Signal, other: Signal, config: MixConfig, sample_rate: int, random: np.random.Generator
) -> tuple[Signal, Signal]:
    """Return a mixture of two voices, and where the first is active in it.

    Args:
        target: The voice to be heard.
        other: The voice laid over it.
        config: Ranges.
        sample_rate: In Hz.
        random: The only source of randomness.
    """
    ratio = float(random.uniform(*config.ratio_db))
    most = int(config.offset_s * sample_rate)
    offset = int(random.integers(-most, most + 1))
    mixture, voice, _ = overlay(target, other, ratio, offset)
    return mixture, activity(voice, sample_rate, TRACK_HZ)


class WordLists:
    """Draws lists of words to expect.

    Args:
        utterances: Whose transcripts' words there are.
        config: How many.
    """

    def __init__(self, utterances: Sequence[Utterance], config: WordsConfig) -> None:
        self._config = config
        counts = Counter(word for item in utterances for word in (item.text or "").split())
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        self._common = frozenset(ranked[: config.common])
        self._known = sorted(set(ranked) - self._common)

    def draw(self, text: str, random: np.random.Generator) -> tuple[str, ...]:
        """Return a list for a transcript, in random order.

        Args:
            text: What is said.
            random: The only source of randomness.
        """
        words = [word for word in dict.fromkeys(text.split()) if word not in self._common]
        said = [word for word in words if random.random() < self._config.said_prob]
        count = int(random.integers(1, self._config.distractors + 1))
        places = random.permutation(len(self._known))[: count + len(words)].tolist()
        unsaid = [self._known[place] for place in places if self._known[place] not in words]
        listed = [*said, *unsaid[:count]]
        return tuple(listed[place] for place in random.permutation(len(listed)).tolist())


class Teller:
    """Turns the rows of a plan into recordings with what is told about them.

    Args:
        speech: The recordings.
        tell: What is told.
        mix: How voices are mixed.
        words: How words are listed.

    Raises:
        DataError: Mixtures are asked for and there are not two speakers.
    """

    def __init__(
        self, speech: SpeechBatches, tell: Tell, mix: MixConfig, words: WordsConfig
    ) -> None:
        self._speech, self._tell, self._mix = speech, tell, mix
        self._lists = WordLists(speech.utterances, words)
        self._companies = None if tell == "words" else Companies(speech.utterances, mix.enrolment_s)

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the utterances that can be drawn."""
        if self._companies is None:
            return tuple(range(len(self._speech.utterances)))
        return self._companies.members

    def row(self, row: Row) -> tuple[SpeechRow, Told]:
        """Return one row, augmented, and what is told about it.

        Args:
            row: Of the plan, one utterance.
        """
        speech, index = self._speech, row.parts[0]
        made = speech.row(row)
        random = generator(*row.seed, "told")
        if self._companies is None:
            words = self._lists.draw(made.text, random)
            return made, Told(made.signal, words=words)
        company = self._companies.draw(index, random)
        other = speech.row(Row((company.other,), (), (*row.seed, "other")))
        mixture, track = mixed(made.signal, other.signal, self._mix, speech.sample_rate, random)
        enrolment = None
        if self._tell == "enrolment":
            gaps = (_GAP_S,) * (len(company.enrolment) - 1)
            enrolment = speech.row(Row(company.enrolment, gaps, (*row.seed, "enrolment"))).signal
        return replace(made, signal=mixture), Told(mixture, enrolment, track, other=other.text)

    def held_out(
        self, items: Sequence[tuple[Signal, Utterance]], sample_rate: int
    ) -> list[tuple[Utterance, Told]]:
        """Return held-out recordings with what is told about them, always the same.

        Args:
            items: Recordings of people of their own.
            sample_rate: In Hz.
        """
        if self._companies is None:
            return [
                (item, Told(signal, words=self._lists.draw(item.text or "", _seeded(item))))
                for signal, item in items
            ]
        signals = [signal for signal, _ in items]
        people = [item for _, item in items]
        drawn = Companies(people, self._mix.enrolment_s)
        found = []
        for index in drawn.members:
            item, random = people[index], _seeded(people[index])
            company = drawn.draw(index, random)
            other = people[company.other]
            mixture, track = mixed(
                signals[index], signals[company.other], self._mix, sample_rate, random
            )
            enrolment = np.concatenate([signals[one] for one in company.enrolment])
            named = replace(item, id=f"{item.id}+{other.id}")
            found.append((named, Told(mixture, enrolment, track, other=other.text or "")))
        return found


def tensors_of(told: Sequence[Told], tell: Tell, encoder: Encoder, start_s: float = 0.0) -> Batch:
    """Return what rows are told as tensors of a batch.

    Args:
        told: The rows.
        tell: What is told.
        encoder: Makes features of enrolments; says the rate of its frames.
        start_s: Hiss put before each row, in seconds.
    """
    if tell == "enrolment":
        window = encoder.window_s
        most = None if window is None else round(window * encoder.sample_rate)
        clips = [torch.from_numpy(np.ascontiguousarray(_enrolment(one)[:most])) for one in told]
        features, lengths = encoder.extract(clips)
        return {_ENROLMENT: features, f"{_ENROLMENT}_lengths": lengths}
    if tell == "activity":
        tracks = [
            frame_track(torch.from_numpy(_track(one)), float(TRACK_HZ), encoder.frame_rate, start_s)
            for one in told
        ]
        return {_TRACK: torch.nn.utils.rnn.pad_sequence(tracks, batch_first=True)}
    codes = [[list(word.encode()) for word in one.words] for one in told]
    most = max((len(words) for words in codes), default=0)
    longest = max((len(word) for words in codes for word in words), default=0)
    table = torch.zeros(len(codes), most, max(1, longest), dtype=torch.uint8)
    for row, words in enumerate(codes):
        for place, word in enumerate(words):
            table[row, place, : len(word)] = torch.tensor(word, dtype=torch.uint8)
    return {_WORDS: table}


def conditions_of(batch: Batch, tell: Tell, encoder: Encoder, config: Any) -> dict[str, Any]:
    """Return the conditions of a batch as `active` takes them.

    Args:
        batch: Holds what `tensors_of` made.
        tell: What is told.
        encoder: Whose frames an enrolment's memory is made of.
        config: The adapter's settings.
    """
    if tell == "enrolment":
        features, lengths = batch[_ENROLMENT], batch[f"{_ENROLMENT}_lengths"]
        values: list[Any] = list(
            remember_features(encoder, features, lengths, config.layer, config.tokens)
        )
    elif tell == "activity":
        values = list(batch[_TRACK].unbind())
    else:
        values = [_written(words) for words in batch[_WORDS].cpu()]
    return {CONDITION[tell]: values}


def _written(words: Tensor) -> tuple[str, ...]:
    found = [bytes(code for code in word if code) for word in words.tolist()]
    return tuple(word.decode() for word in found if word)


def _enrolment(told: Told) -> Signal:
    assert told.enrolment is not None  # made where enrolments are told
    return told.enrolment


def _track(told: Told) -> Signal:
    assert told.track is not None  # made where activities are told
    return told.track


def _seeded(item: Utterance) -> np.random.Generator:
    return generator("told", item.id)
