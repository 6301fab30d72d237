"""Speech that no text covers: the check against output that stops early or drops a stretch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from speechadapt.audio.span import Span, total_s
from speechadapt.core.errors import DataError


@dataclass(frozen=True)
class Coverage:
    """How much of the speech has text.

    Args:
        speech_s: Seconds of speech by voice activity detection.
        covered_s: Seconds of it inside text segments.
        uncovered: Stretches of speech without text, short ones left out.
    """

    speech_s: float
    covered_s: float
    uncovered: tuple[Span, ...] = ()

    @property
    def share(self) -> float:
        """Covered share of the speech, 0 to 1; 1 where nobody speaks."""
        return self.covered_s / self.speech_s if self.speech_s > 0 else 1.0

    @property
    def longest_gap_s(self) -> float:
        """Seconds of the longest stretch of speech without text."""
        return max((span.duration_s for span in self.uncovered), default=0.0)


def measure_coverage(
    speech: Iterable[Span],
    text: Iterable[Span],
    *,
    margin_s: float = 0.2,
    min_gap_s: float = 0.5,
) -> Coverage:
    """Compare the speech found by voice activity with the stretches that have text.

    Args:
        speech: Spans of speech, in any order; overlaps count once.
        text: Spans of segments or words that have text.
        margin_s: Seconds by which each text span is widened on both sides, since word times and
            voice activity disagree at the edges.
        min_gap_s: Uncovered stretches shorter than this are counted and not listed.

    Returns:
        Seconds of speech, seconds covered, and the stretches without text.

    Raises:
        DataError: A span ends before it starts.
    """
    spoken = merge_spans(speech)
    widened = (Span(span.start_s - margin_s, span.end_s + margin_s) for span in text)
    gaps = _subtract(spoken, merge_spans(widened))
    speech_s = total_s(spoken)
    listed = tuple(span for span in gaps if span.duration_s >= min_gap_s)
    return Coverage(speech_s, max(speech_s - total_s(gaps), 0.0), listed)


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Sort spans and join those that touch or overlap.

    Raises:
        DataError: A span ends before it starts.
    """
    merged: list[Span] = []
    for span in sorted(spans):
        if not span.start_s <= span.end_s:
            raise DataError(
                f"a span must not end before it starts, got {span.start_s} to {span.end_s} s."
            )
        if merged and span.start_s <= merged[-1].end_s:
            last = merged[-1]
            merged[-1] = Span(last.start_s, max(last.end_s, span.end_s))
        else:
            merged.append(span)
    return merged


def _subtract(spans: list[Span], holes: list[Span]) -> list[Span]:
    left: list[Span] = []
    for span in spans:
        cursor = span.start_s
        for hole in holes:
            if hole.end_s <= cursor or hole.start_s >= span.end_s:
                continue
            if hole.start_s > cursor:
                left.append(Span(cursor, hole.start_s))
            cursor = max(cursor, hole.end_s)
        if cursor < span.end_s:
            left.append(Span(cursor, span.end_s))
    return left
