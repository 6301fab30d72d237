"""Where somebody speaks: spans of speech from window probabilities, whole or block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from speechadapt.audio.span import Signal, Span
from speechadapt.audio.speech_probability import (
    SAMPLE_RATE,
    WINDOW,
    EnergyScorer,
    Scorer,
    SileroScorer,
)
from speechadapt.core.errors import CheckpointError, ConfigError

_HOP_S = WINDOW / SAMPLE_RATE
# Scores are computed in blocks of this many windows from the start of a recording, whatever the
# blocks it arrives in, so rounding does not depend on those.
_BLOCK_WINDOWS = 256


@dataclass(frozen=True)
class VadOptions:
    """How probabilities become spans; names as other tools have them.

    Args:
        threshold: Speech begins at this probability.
        neg_threshold: Speech ends below this probability; None means `threshold` - 0.15.
        min_speech_duration_ms: Shorter speech is dropped.
        min_silence_duration_ms: A shorter pause does not end a span.
        speech_pad_ms: Kept on each side of a span where recordings are cut; at most half of
            `min_silence_duration_ms` takes effect, so padded spans never overlap.
    """

    threshold: float = 0.5
    neg_threshold: float | None = None
    min_speech_duration_ms: int = 250
    min_silence_duration_ms: int = 500
    speech_pad_ms: int = 250

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(f"vad.threshold must be between 0 and 1, got {self.threshold!r}.")
        if self.neg_threshold is not None and not 0.0 <= self.neg_threshold <= self.threshold:
            raise ConfigError(
                f"vad.neg_threshold must be between 0 and vad.threshold ({self.threshold:g}), "
                f"got {self.neg_threshold!r}."
            )
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"vad.{name} must be 0 or more milliseconds, got {getattr(self, name)!r}."
                )

    @property
    def exit_threshold(self) -> float:
        """Probability below which speech ends."""
        if self.neg_threshold is not None:
            return self.neg_threshold
        return max(self.threshold - 0.15, 0.01)

    @property
    def pad_s(self) -> float:
        """Seconds kept on each side of a span."""
        return min(self.speech_pad_ms, self.min_silence_duration_ms / 2) / 1000


class SpeechStream:
    """Finds the speech of one recording as its blocks arrive.

    Args:
        scorer: Gives the probabilities.
        options: How they become spans.
    """

    def __init__(self, scorer: Scorer, options: VadOptions) -> None:
        self._scorer, self._state = scorer, scorer.start()
        self._spans = _SpanTracker(options)
        self._rest: Signal = np.zeros(0, dtype=np.float32)
        self._samples = 0

    @property
    def open(self) -> Span | None:
        """The span that is under way, as far as it is known, once it is sure to be kept."""
        return self._spans.open

    @property
    def undecided_s(self) -> float:
        """Seconds before which all is decided; a later span starts here at the earliest."""
        return self._spans.undecided_s

    def push(self, block: Signal) -> list[Span]:
        """Take the next block and return the spans of speech that ended."""
        self._samples += len(block)
        samples = np.concatenate((self._rest, block)) if len(self._rest) else block
        size = _BLOCK_WINDOWS * WINDOW
        ended: list[Span] = []
        for start in range(0, len(samples) - size + 1, size):
            ended += self._advance(samples[start : start + size])
        self._rest = samples[len(samples) - len(samples) % size :].copy()
        return ended

    def finish(self) -> list[Span]:
        """Take the end of the recording and return the spans that were still open."""
        ended = self._advance(_whole_windows(self._rest)) if len(self._rest) else []
        self._rest = self._rest[:0]
        return ended + self._spans.finish(self._samples / SAMPLE_RATE)

    def _advance(self, samples: Signal) -> list[Span]:
        if not samples.any():
            # Digital silence, hours of it in some recordings: nothing to score, a new start.
            self._state = self._scorer.start()
            return self._spans.advance(_no_speech(samples))
        scores, self._state = self._scorer.score(samples, self._state)
        return self._spans.advance(scores)


class SpeechDetector:
    """Finds speech in 16 kHz mono sound.

    Spans are as heard, without padding; `options.pad_s` is for those who cut.

    Args:
        scorer: Gives the probabilities.
        options: How they become spans.
        fallback: Why `scorer` stands in for a better one; None where it does not.

    Attributes:
        name: The scorer's name and, if it stands in for another, why.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, scorer: Scorer, options: VadOptions | None = None, fallback: str | None = None
    ) -> None:
        self.options = options or VadOptions()
        self.fallback = fallback
        self.name = scorer.name if fallback is None else f"{scorer.name} ({fallback})"
        self._scorer = scorer

    def stream(self) -> SpeechStream:
        """Begin a recording that arrives in blocks."""
        return SpeechStream(self._scorer, self.options)

    def detect(self, waveform: Signal) -> list[Span]:
        """Return the spans of speech of a whole recording, in order."""
        stream = self.stream()
        return stream.push(waveform) + stream.finish()

    def detect_batch(self, waveforms: Sequence[Signal]) -> list[list[Span]]:
        """Return the spans of each of many clips; the short ones are scored together.

        Rounding of the scores aside, which is below 1e-5, this equals `detect` on each.
        """
        clips = [_whole_windows(each) for each in waveforms]
        together = [
            index
            for index, clip in enumerate(clips)
            if 0 < len(clip) <= _BLOCK_WINDOWS * WINDOW and clip.any()
        ]
        scores = dict(
            zip(together, self._scorer.score_batch([clips[i] for i in together]), strict=True)
        )
        return [
            spans_of(scores[index], len(waveform) / SAMPLE_RATE, self.options)
            if index in scores
            else self.detect(waveform)
            for index, waveform in enumerate(waveforms)
        ]


def speech_detector(
    options: VadOptions | None = None, scorer: Literal["auto", "silero", "energy"] = "auto"
) -> SpeechDetector:
    """Make a detector.

    Args:
        options: How probabilities become spans.
        scorer: `auto` takes Silero and, where it does not load, energy, saying so in its name.

    Raises:
        CheckpointError: `silero` was asked for and does not load.
    """
    if scorer == "energy":
        return SpeechDetector(EnergyScorer(), options)
    try:
        return SpeechDetector(SileroScorer(), options)
    except CheckpointError as error:
        if scorer == "silero":
            raise
        return SpeechDetector(EnergyScorer(), options, f"stands in for silero-vad: {error}")


def spans_of(
    scores: Float32[np.ndarray, " _windows"], duration_s: float, options: VadOptions
) -> list[Span]:
    """Turn the window probabilities of a whole recording into spans of speech.

    Args:
        scores: One probability per window of 32 ms.
        duration_s: Length of the recording; no span ends later.
        options: Thresholds and shortest lengths.
    """
    tracker = _SpanTracker(options)
    return tracker.advance(scores) + tracker.finish(duration_s)


class _SpanTracker:
    """The two-threshold rule, window by window."""

    def __init__(self, options: VadOptions) -> None:
        self._enter, self._leave = options.threshold, options.exit_threshold
        self._min_speech_s = options.min_speech_duration_ms / 1000
        self._min_silence_s = options.min_silence_duration_ms / 1000
        self._index = 0
        self._start: float | None = None
        self._quiet: float | None = None

    @property
    def open(self) -> Span | None:
        if self._start is None:
            return None
        end = self._index * _HOP_S if self._quiet is None else self._quiet
        return Span(self._start, end) if end - self._start > self._min_speech_s else None

    @property
    def undecided_s(self) -> float:
        return self._index * _HOP_S if self._start is None else self._start

    def advance(self, scores: Float32[np.ndarray, " _windows"]) -> list[Span]:
        ended = []
        for score in scores.tolist():
            now = self._index * _HOP_S
            self._index += 1
            if score >= self._enter:
                self._quiet = None
                if self._start is None:
                    self._start = now
            elif score < self._leave and self._start is not None:
                if self._quiet is None:
                    self._quiet = now
                if now - self._quiet >= self._min_silence_s:
                    if self._quiet - self._start > self._min_speech_s:
                        ended.append(Span(self._start, self._quiet))
                    self._start = self._quiet = None
        return ended

    def finish(self, duration_s: float) -> list[Span]:
        start, end = self._start, self._quiet
        self._start = self._quiet = None
        if start is None:
            return []
        end = duration_s if end is None else min(end, duration_s)
        return [Span(start, end)] if end - start > self._min_speech_s else []


def _no_speech(samples: Signal) -> Float32[np.ndarray, " _windows"]:
    return np.zeros(len(samples) // WINDOW, dtype=np.float32)


def _whole_windows(samples: Signal) -> Signal:
    """Fill the last window with zeros."""
    missing = -len(samples) % WINDOW
    return np.pad(samples, (0, missing)) if missing else samples
