"""Percentile bootstrap intervals of ratios such as error rates, clustered by speaker.

Items of one speaker resemble one another, so resampling items alone makes intervals too narrow.
Where several speakers are known, whole speakers are drawn; otherwise items are, and the result says
which. With few clusters the interval is rough; their number stands beside it for that reason.

Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", ICASSP 2004; clusters as in Efron and Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechadapt.core.errors import DataError
from speechadapt.core.seed import generator

RESAMPLES = 2000
_BLOCK_CELLS = 1 << 20


@dataclass(frozen=True)
class Interval:
    """A ratio and how far it can be trusted.

    Args:
        estimate: The ratio of the sums; NaN without data.
        low: Lower end.
        high: Upper end.
        level: Share of resampled ratios between the ends.
        unit: What was drawn: `speaker` or `item`.
        clusters: How many of them there are.
        speakers: Distinct speakers among the items; None where some item names none.
        resamples: How often the corpus was drawn anew.
        seed: Seed of the drawing.
    """

    estimate: float
    low: float
    high: float
    level: float
    unit: str
    clusters: int
    speakers: int | None
    resamples: int
    seed: int

    @property
    def description(self) -> str:
        """How the interval was made, in words."""
        made = f"{self.level:.0%} bootstrap over {self.clusters} {self.unit}s"
        if self.speakers == 1:
            made += " of one speaker: it says nothing about other speakers"
        return made


def bootstrap_ratio(
    numerators: Sequence[float | int],
    denominators: Sequence[float | int],
    speakers: Sequence[str | None] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Bracket `sum(numerators) / sum(denominators)`.

    Args:
        numerators: One value per item, such as its edits.
        denominators: One value per item, 0 or more, such as its reference words.
        speakers: One name per item. Whole speakers are drawn if every item names one and there
            are at least two; else items are drawn.
        level: Coverage of the interval, between 0 and 1.
        resamples: How often to draw.
        seed: Seed; the same seed and items give the same interval.

    Returns:
        The interval; all NaN where the denominators sum to 0.

    Raises:
        DataError: Lengths differ, a value is negative or not finite, or `level` or `resamples` is
            out of range.
    """
    above, below = _checked(numerators, denominators, speakers, level, resamples)
    return _bracket(above, below, speakers, level=level, resamples=resamples, seed=seed)


def bootstrap_difference(
    first: Sequence[float | int],
    second: Sequence[float | int],
    denominators: Sequence[float | int],
    speakers: Sequence[str | None] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Bracket `(sum(first) - sum(second)) / sum(denominators)` of two results for the same items.

    Both are drawn together, so what makes an item hard for both does not widen the interval.

    Args:
        first: One value per item, such as its edits by one system.
        second: The same by the other system.
        denominators: One value per item, 0 or more, such as its reference words.
        speakers: One name per item, as in `bootstrap_ratio`.
        level: Coverage of the interval, between 0 and 1.
        resamples: How often to draw.
        seed: Seed; the same seed and items give the same interval.

    Returns:
        The interval of the difference, which may be negative; all NaN where the denominators sum
        to 0.

    Raises:
        DataError: Lengths differ, a value is negative or not finite, or `level` or `resamples` is
            out of range.
    """
    above, below = _checked(first, denominators, speakers, level, resamples)
    less, _ = _checked(second, denominators, speakers, level, resamples)
    return _bracket(above - less, below, speakers, level=level, resamples=resamples, seed=seed)


def _bracket(
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    speakers: Sequence[str | None] | None,
    *,
    level: float,
    resamples: int,
    seed: int,
) -> Interval:
    unit, names = clusters_of(len(above), speakers)
    above, below = sum_by(names, above), sum_by(names, below)
    known = None if speakers is None or None in speakers else len(set(speakers))
    low = high = estimate = math.nan
    if below.sum() > 0:
        estimate = float(above.sum() / below.sum())
        ratios = resampled(above, below, resamples, generator("bootstrap", seed))
        tail = (1 - level) / 2
        low, high = (float(end) for end in np.nanquantile(ratios, (tail, 1 - tail)))
    return Interval(estimate, low, high, level, unit, len(above), known, resamples, seed)


def _checked(
    numerators: Sequence[float | int],
    denominators: Sequence[float | int],
    speakers: Sequence[str | None] | None,
    level: float,
    resamples: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    above = np.asarray(numerators, dtype=np.float64)
    below = np.asarray(denominators, dtype=np.float64)
    lengths = (len(above), len(below), len(above) if speakers is None else len(speakers))
    if len(set(lengths)) != 1:
        raise DataError(
            f"a bootstrap needs one numerator, denominator and speaker per item, got "
            f"{lengths[0]}, {lengths[1]} and {lengths[2]}."
        )
    both = np.concatenate((above, below))
    if not np.isfinite(both).all() or (both < 0).any():
        raise DataError("a bootstrap needs finite values of 0 or more.")
    if not 0 < level < 1 or resamples < 1:
        raise DataError(
            f"level must lie between 0 and 1 and resamples be 1 or more, got {level} and "
            f"{resamples}."
        )
    return above, below


def clusters_of(items: int, speakers: Sequence[str | None] | None) -> tuple[str, NDArray[np.int64]]:
    """Return what to draw and the cluster number of each item, in order of first appearance.

    Args:
        items: How many there are.
        speakers: One name per item; speakers are drawn where all are known and two differ.
    """
    if speakers is None or None in speakers or len(set(speakers)) < 2:
        return "item", np.arange(items)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(speakers))}
    return "speaker", np.asarray([numbers[name] for name in speakers], dtype=np.int64)


def sum_by(names: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the values of every cluster.

    Args:
        names: Cluster number of each item.
        values: One per item.
    """
    return np.bincount(names, weights=values).astype(np.float64)


def resampled(
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    resamples: int,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Return ratios of sums over clusters drawn with replacement.

    Draws are made in blocks, so that memory stays bounded.

    Args:
        above: One value per cluster.
        below: One value per cluster.
        resamples: How often to draw.
        random: The same numbers draw the same clusters.
    """
    ratios = np.empty(resamples)
    block = max(1, _BLOCK_CELLS // len(above))
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn = random.integers(len(above), size=(stop - start, len(above)))
        sums = below[drawn].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios[start:stop] = np.where(sums > 0, above[drawn].sum(axis=1) / sums, np.nan)
    return ratios
