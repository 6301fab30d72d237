"""Long recordings in pieces a model can take: cut where nobody speaks, at most one window long.

Speech longer than a window is cut where it is quietest in the window's second half; neighbouring
pieces are then joined again as long as they fit one window and the pause between them is short.
`segments` does so block by block and gives what the same steps give on the whole recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from speechadapt.audio.span import Signal, Span, overlap_s, pad_span
from speechadapt.audio.vad import SpeechDetector, SpeechStream
from speechadapt.core.errors import ConfigError

_EPSILON_S = 1e-6
_QUIET_S = 0.1
_STEP_S = 0.01


class Segment(NamedTuple):
    """A piece of a recording with its sound.

    Attributes:
        start_s: Seconds from the start of the recording.
        end_s: Seconds from the start of the recording.
        waveform: The samples between.
        speech_s: Seconds of speech in it, padding and pauses left out.
    """

    start_s: float
    end_s: float
    waveform: Signal
    speech_s: float


def quietest_s(waveform: Signal, sample_rate: int, origin_s: float, span: Span) -> float:
    """Find the quietest 0.1 s of a span.

    Args:
        waveform: Sound that holds the span.
        sample_rate: In Hz.
        origin_s: Time of the first sample of `waveform`.
        span: Where to look, at least 0.1 s long.

    Returns:
        The time in the middle of the quietest stretch, the last of equals; on a sample.
    """
    origin = round(origin_s * sample_rate)
    first = round(span.start_s * sample_rate) - origin
    last = round(span.end_s * sample_rate) - origin
    size, step = round(_QUIET_S * sample_rate), max(1, round(_STEP_S * sample_rate))
    energy = np.concatenate(([0.0], np.cumsum(waveform[first:last].astype(np.float64) ** 2)))
    starts = np.arange(0, max(1, len(energy) - size), step)
    ends = np.minimum(starts + size, len(energy) - 1)
    sums = energy[ends] - energy[starts]
    best = int(starts[np.flatnonzero(sums <= sums.min())[-1]])
    return (origin + first + best + size // 2) / sample_rate


def cut_span(span: Span, window_s: float, quietest: Callable[[Span], float]) -> list[Span]:
    """Cut a span into pieces of at most `window_s` that lie end to end.

    Args:
        span: What to cut.
        window_s: Longest piece, in seconds.
        quietest: Gives the time to cut at, inside the span it is handed.
    """
    pieces = []
    while span.duration_s > window_s + _EPSILON_S:
        at = quietest(_second_half(span.start_s, window_s))
        pieces.append(Span(span.start_s, at))
        span = Span(at, span.end_s)
    return [*pieces, span]


def merge_spans(
    spans: Iterable[Span], window_s: float, max_pause_s: float = float("inf")
) -> Iterator[Span]:
    """Join neighbours, first come first served, while they fit a window.

    Args:
        spans: In order, not overlapping, none longer than `window_s`.
        window_s: Longest result, in seconds.
        max_pause_s: Neighbours further apart stay apart.
    """
    pending: Span | None = None
    for span in spans:
        joined = None if pending is None else _join(pending, span, window_s, max_pause_s)
        if pending is not None and joined is None:
            yield pending
        pending = joined or span
    if pending is not None:
        yield pending


def segments(
    blocks: Iterable[Signal],
    detector: SpeechDetector,
    window_s: float,
    *,
    max_pause_s: float = 2.0,
) -> Iterator[Segment]:
    """Cut a recording of any length into segments of speech as its blocks arrive.

    Memory stays within a few windows and blocks, whatever the length. The result does not depend
    on the size of the blocks.

    Args:
        blocks: Mono sound at the detector's rate, in order.
        detector: Finds the speech.
        window_s: Longest segment, in seconds; at least 1.
        max_pause_s: Speech further apart goes into separate segments.

    Yields:
        Segments in order, not overlapping; none where nobody speaks.

    Raises:
        ConfigError: The window is shorter than a second.
    """
    if window_s < 1.0:
        raise ConfigError(f"the window must be 1 second or more, got {window_s:g} s.")
    cutter = _Cutter(detector, window_s, max_pause_s)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class _Cutter:
    """The state of `segments`: sound not yet cut, spans not yet final."""

    def __init__(self, detector: SpeechDetector, window_s: float, max_pause_s: float) -> None:
        self._stream: SpeechStream = detector.stream()
        self._rate, self._pad_s = detector.sample_rate, detector.options.pad_s
        self._window_s, self._max_pause_s = window_s, max_pause_s
        self._sound: Signal = np.zeros(0, dtype=np.float32)
        self._origin = 0
        self._speech: list[Span] = []
        self._pending: Span | None = None
        self._cut_s: float | None = None

    def push(self, block: Signal) -> Iterator[Segment]:
        self._sound = np.concatenate((self._sound, block))
        for span in self._stream.push(block):
            yield from self._close(span)
        yield from self._cut_open()
        pending = self._pending
        if pending is not None:
            coming = self._coming_s()
            far = coming - pending.end_s > self._max_pause_s + _EPSILON_S
            if far or coming - pending.start_s >= self._window_s + _EPSILON_S:
                yield self._segment(pending)
                self._pending = None
        self._forget()

    def finish(self) -> Iterator[Segment]:
        for span in self._stream.finish():
            yield from self._close(span)
        if self._pending is not None:
            yield self._segment(self._pending)
            self._pending = None

    def _close(self, span: Span) -> Iterator[Segment]:
        """Take a span that has ended: cut what is left of it and queue the pieces."""
        self._speech.append(span)
        end_s = (self._origin + len(self._sound)) / self._rate
        padded = pad_span(span, self._pad_s, end_s)
        if self._cut_s is not None:
            padded, self._cut_s = Span(self._cut_s, padded.end_s), None
        for piece in cut_span(padded, self._window_s, self._quietest):
            yield from self._queue(piece)

    def _cut_open(self) -> Iterator[Segment]:
        """Cut speech that goes on for longer than a window, without waiting for its end."""
        under_way = self._stream.open
        while under_way is not None:
            start = self._cut_s
            if start is None:
                start = max(0.0, under_way.start_s - self._pad_s)
            if under_way.end_s - start <= self._window_s + _EPSILON_S:
                return
            self._cut_s = self._quietest(_second_half(start, self._window_s))
            yield from self._queue(Span(start, self._cut_s))

    def _queue(self, piece: Span) -> Iterator[Segment]:
        pending = self._pending
        joined = None
        if pending is not None:
            joined = _join(pending, piece, self._window_s, self._max_pause_s)
            if joined is None:
                yield self._segment(pending)
        self._pending = joined or piece

    def _segment(self, span: Span) -> Segment:
        first = round(span.start_s * self._rate) - self._origin
        last = round(span.end_s * self._rate) - self._origin
        under_way = self._stream.open
        speech = self._speech if under_way is None else [*self._speech, under_way]
        return Segment(
            span.start_s, span.end_s, self._sound[first:last].copy(), overlap_s(span, speech)
        )

    def _quietest(self, span: Span) -> float:
        return quietest_s(self._sound, self._rate, self._origin / self._rate, span)

    def _coming_s(self) -> float:
        """Earliest start of any piece still to come."""
        if self._cut_s is not None:
            return self._cut_s
        return max(0.0, self._stream.undecided_s - self._pad_s)

    def _forget(self) -> None:
        """Drop sound and speech that no later segment can need."""
        needed = self._coming_s() if self._pending is None else self._pending.start_s
        drop = max(0, round(needed * self._rate) - self._origin)
        self._sound = self._sound[drop:].copy()
        self._origin += drop
        self._speech = [span for span in self._speech if span.end_s > needed]


def _second_half(start_s: float, window_s: float) -> Span:
    return Span(start_s + window_s / 2, start_s + window_s)


def _join(first: Span, second: Span, window_s: float, max_pause_s: float) -> Span | None:
    near = second.start_s - first.end_s <= max_pause_s + _EPSILON_S
    fits = second.end_s - first.start_s <= window_s + _EPSILON_S
    return Span(first.start_s, second.end_s) if near and fits else None
