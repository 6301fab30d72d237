"""Transcripts: what was said in a recording, in Whisper's JSON fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from speechadapt.decoders.base import Hypothesis

_TIME_STEP_S = 0.02
_PLACES = 2


@dataclass(frozen=True)
class Word:
    """A word in time.

    Args:
        word: The word, without surrounding space.
        start: Seconds from the start of the recording.
        end: Seconds from the start of the recording.
        probability: Mean probability of its tokens, 0 to 1.
    """

    word: str
    start: float
    end: float
    probability: float

    def to_json(self) -> dict[str, Any]:
        """Return its fields, times rounded to 0.02 s and the probability to 0.01."""
        return {
            "word": self.word,
            "start": round_time(self.start),
            "end": round_time(self.end),
            "probability": round(self.probability, _PLACES),
        }


@dataclass(frozen=True)
class Segment:
    """A stretch of speech.

    Args:
        id: Its place among the segments.
        start: Seconds from the start of the recording.
        end: Seconds from the start of the recording.
        text: What was said.
        avg_logprob: Mean natural log-probability per token.
        compression_ratio: UTF-8 bytes over zlib bytes of the text.
        no_speech_prob: Probability that nobody speaks; None where the model has no such score.
        temperature: Sampling temperature that gave the text.
        words: Words in time; empty where the model gives none.
        flags: Reasons for doubt.
        raw_text: What the decoder wrote before it was taken for silence; None where it was kept.
        adapters: The weight of each adapter that spoke, where several were composed; empty where
            the base spoke alone, None where nothing was composed.
        candidates: What else the decoder wrote for it, where it was asked to say so.
    """

    id: int
    start: float
    end: float
    text: str
    avg_logprob: float = 0.0
    compression_ratio: float = 1.0
    no_speech_prob: float | None = None
    temperature: float = 0.0
    words: tuple[Word, ...] = ()
    flags: tuple[str, ...] = ()
    raw_text: str | None = None
    adapters: Mapping[str, float] | None = None
    candidates: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return its fields, times rounded to 0.02 s and probabilities to 0.01."""
        silence = self.no_speech_prob
        row: dict[str, Any] = {
            "id": self.id,
            "start": round_time(self.start),
            "end": round_time(self.end),
            "text": self.text,
            "avg_logprob": round(self.avg_logprob, _PLACES),
            "compression_ratio": round(self.compression_ratio, _PLACES),
            "no_speech_prob": None if silence is None else round(silence, _PLACES),
            "temperature": self.temperature,
            "words": [word.to_json() for word in self.words],
            "flags": list(self.flags),
        }
        if self.adapters is not None:
            row["adapters"] = dict(self.adapters)
        if self.raw_text is not None:
            row["raw_text"] = self.raw_text
        if self.candidates:
            row["candidates"] = [dict(one) for one in self.candidates]
        return row


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Args:
        text: The whole text.
        language: Language code, None where nobody knows.
        segments: Its parts, in order.
        duration: Seconds of the recording.
        flags: Every reason for doubt, each once.
    """

    text: str
    language: str | None
    segments: tuple[Segment, ...]
    duration: float
    flags: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_json(self) -> dict[str, Any]:
        """Return Whisper's fields (`text`, `segments`, `language`), and `duration` and `flags`."""
        return {
            "text": self.text,
            "language": self.language,
            "duration": round(self.duration, 3),
            "flags": list(self.flags),
            "segments": [segment.to_json() for segment in self.segments],
        }


@dataclass(frozen=True)
class Piece:
    """A decoded part of a recording.

    Args:
        start: Seconds from the start of the recording.
        end: Seconds from the start of the recording.
        hypothesis: What was heard, its times counted from `start`.
    """

    start: float
    end: float
    hypothesis: Hypothesis


def assemble(pieces: Iterable[Piece], duration: float, language: str | None = None) -> Transcript:
    """Put the decoded parts of a recording together, times mapped back to the recording.

    A piece is one segment, from its first word to its last where the words have times; where the
    decoder itself cut it at timestamps, its cuts are kept. Pieces without text and without a flag
    leave no segment.

    Args:
        pieces: Parts in order.
        duration: Seconds of the recording.
        language: The model's language; what a decoder detects goes first.
    """
    segments: list[Segment] = []
    flags: list[str] = []
    detected: dict[str, float] = {}
    for piece in pieces:
        segments += _segments(piece, len(segments))
        flags += [flag for flag in piece.hypothesis.flags if flag not in flags]
        heard = piece.hypothesis.details.get("language")
        if heard is not None:
            detected[heard] = detected.get(heard, 0.0) + piece.end - piece.start
    return Transcript(
        text=" ".join(segment.text for segment in segments if segment.text),
        language=max(detected, key=lambda code: detected[code]) if detected else language,
        segments=tuple(segments),
        duration=duration,
        flags=tuple(flags),
    )


def round_time(seconds: float) -> float:
    """Round to the nearest 0.02 s."""
    return round(round(seconds / _TIME_STEP_S) * _TIME_STEP_S, _PLACES)


def _segments(piece: Piece, first_id: int) -> list[Segment]:
    hypothesis = piece.hypothesis
    words = tuple(
        Word(word.text, piece.start + word.start, piece.start + word.end, word.probability)
        for word in hypothesis.words
    )
    cuts = [
        (
            piece.start + cut["start"],
            piece.end if cut["end"] is None else min(piece.start + cut["end"], piece.end),
            cut["text"],
        )
        for cut in hypothesis.details.get("segments", ())
    ]
    if not cuts and (hypothesis.text or hypothesis.flags):
        start, end = (words[0].start, words[-1].end) if words else (piece.start, piece.end)
        cuts = [(start, min(end, piece.end), hypothesis.text)]
    return [
        Segment(
            id=first_id + at,
            start=start,
            end=end,
            text=text,
            avg_logprob=hypothesis.avg_logprob,
            compression_ratio=hypothesis.compression_ratio,
            no_speech_prob=hypothesis.no_speech_prob,
            temperature=hypothesis.temperature,
            words=_within(words, cuts, at),
            flags=hypothesis.flags,
            raw_text=hypothesis.details.get("raw_text"),
            candidates=tuple(hypothesis.details.get("candidates", ())),
            adapters=hypothesis.details.get("adapters"),
        )
        for at, (start, end, text) in enumerate(cuts)
    ]


def _within(
    words: tuple[Word, ...], cuts: list[tuple[float, float, str]], at: int
) -> tuple[Word, ...]:
    """Return the words of one cut: as many as its text has, after those of the cuts before."""
    if len(cuts) == 1:
        return words
    before = sum(len(text.split()) for _, _, text in cuts[:at])
    return words[before : before + len(cuts[at][2].split())]
