"""Spans of time in a recording, and the array that holds its sound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

# The underscore leaves the length free: several signals of one call may differ in it.
Signal: TypeAlias = Float32[np.ndarray, " _samples"]


@dataclass(frozen=True, order=True)
class Span:
    """A stretch of a recording.

    Args:
        start_s: Seconds from the start of the recording.
        end_s: Seconds from the start of the recording, after `start_s`.
    """

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


def total_s(spans: Iterable[Span]) -> float:
    """Return the seconds that spans cover, for spans that do not overlap."""
    return float(sum(span.duration_s for span in spans))


def pad_span(span: Span, pad_s: float, end_s: float) -> Span:
    """Widen a span on both sides, without leaving the recording.

    Args:
        span: Lies in the recording.
        pad_s: Seconds to add on each side.
        end_s: Length of the recording.
    """
    return Span(max(0.0, span.start_s - pad_s), min(end_s, span.end_s + pad_s))


def overlap_s(span: Span, others: Iterable[Span]) -> float:
    """Return the seconds of `span` that `others`, which do not overlap, cover."""
    shared = (min(span.end_s, each.end_s) - max(span.start_s, each.start_s) for each in others)
    return float(sum(seconds for seconds in shared if seconds > 0))
