"""Histograms as inline SVG: equal bins of round width, the tail in one last bin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_MOST_BINS = 24
_TAIL = 0.99
_WIDTH, _HEIGHT, _FOOT = 360, 120, 18


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of equal width; what lies beyond is in the last bin.

    Args:
        counts: Values in each bin.
        width: Of a bin.
        low: Where the first bin begins.
        beyond: Whether the last bin has no upper end.
        median: Of all values.
        high: The value that 95 % of all values do not exceed.
        total: How many values there are.
    """

    counts: tuple[int, ...]
    width: float
    low: float
    beyond: bool
    median: float
    high: float
    total: int


def make_histogram(values: Sequence[float]) -> Histogram | None:
    """Count values in bins from 0 up.

    Args:
        values: Not negative; those that are not finite are left out.

    Returns:
        The histogram; None where there is no value.
    """
    ordered = sorted(value for value in values if math.isfinite(value))
    if not ordered:
        return None
    most, tail = ordered[-1], _quantile(ordered, _TAIL)
    width = _round_width(tail / _MOST_BINS)
    num_bins = max(1, math.floor(tail / width) + 1)
    beyond = most >= num_bins * width
    counts = [0] * (num_bins + beyond)
    for value in ordered:
        counts[min(int(value / width), len(counts) - 1)] += 1
    return Histogram(
        tuple(counts),
        width,
        0.0,
        beyond,
        _quantile(ordered, 0.5),
        _quantile(ordered, 0.95),
        len(ordered),
    )


def histogram_svg(histogram: Histogram, title: str, unit: str, scale: float = 1.0) -> str:
    """Draw a histogram.

    Args:
        histogram: The counts.
        title: What was counted.
        unit: Of the values as they are shown.
        scale: Turns a value into the unit shown.

    Returns:
        An `svg` element that says in words what it shows.
    """
    count = len(histogram.counts)
    tallest = max(histogram.counts)
    step = _WIDTH / count
    bars = []
    for place, number in enumerate(histogram.counts):
        height = (_HEIGHT - _FOOT) * number / tallest
        name = f"{_range_text(histogram, place, unit, scale)}: {number}"
        bars.append(
            f'<rect x="{place * step + 0.5:.1f}" y="{_HEIGHT - _FOOT - height:.1f}" '
            f'width="{max(1.0, step - 1):.1f}" height="{height:.1f}"><title>{escape(name)}</title>'
            "</rect>"
        )
    ends = f"{_text(histogram.low * scale)} {unit}", _end_text(histogram, unit, scale)
    words = (
        f"{title}: {histogram.total} values, median {_text(histogram.median * scale)} {unit}, "
        f"95 % up to {_text(histogram.high * scale)} {unit}"
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(words)}">{"".join(bars)}'
        f'<text x="0" y="{_HEIGHT - 4}">{escape(ends[0])}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{escape(ends[1])}</text></svg>'
        f"<p>median {_text(histogram.median * scale)} {escape(unit)}, "
        f"95 % up to {_text(histogram.high * scale)} {escape(unit)}</p>"
    )


def _range_text(histogram: Histogram, place: int, unit: str, scale: float) -> str:
    start = histogram.low + place * histogram.width
    if histogram.beyond and place == len(histogram.counts) - 1:
        return f"{_text(start * scale)} {unit} and more"
    return f"{_text(start * scale)} to {_text((start + histogram.width) * scale)} {unit}"


def _end_text(histogram: Histogram, unit: str, scale: float) -> str:
    bins = len(histogram.counts) - histogram.beyond
    end = _text((histogram.low + bins * histogram.width) * scale)
    return f"{end} {unit} and more" if histogram.beyond else f"{end} {unit}"


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _round_width(least: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    if least <= 0:
        return 0.01
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _text(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
