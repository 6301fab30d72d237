"""How well vectors of recordings tell speakers apart: the equal error rate.

A trial is a pair of recordings and its score the cosine of their vectors. At the equal error rate
as many pairs of one speaker fall below a threshold as pairs of two speakers reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speechadapt.core.errors import DataError
from speechadapt.core.seed import generator

_RESAMPLES = 400


@dataclass(frozen=True)
class EqualError:
    """An equal error rate.

    Args:
        rate: The rate, a fraction.
        threshold: The cosine at which both kinds of errors are as frequent.
        same: Pairs of one speaker.
        different: Pairs of two speakers.
        low: Lower end of the 95 % interval; None where it was not asked for.
        high: Its upper end.
    """

    rate: float
    threshold: float
    same: int
    different: int
    low: float | None = None
    high: float | None = None


def equal_error_rate(same: ArrayLike, different: ArrayLike) -> EqualError:
    """Find where misses and false alarms are as frequent.

    Between two scores both rates are constant, so they need not meet; the rate is their mean where
    they are nearest.

    Args:
        same: Scores of pairs of one speaker.
        different: Scores of pairs of two speakers.

    Raises:
        DataError: There is none of one kind.
    """
    hits, alarms = (np.sort(np.asarray(side, dtype=np.float64)) for side in (same, different))
    if not len(hits) or not len(alarms):
        raise DataError(
            f"an equal error rate was asked for of {len(hits)} pairs of one speaker and "
            f"{len(alarms)} of two; it needs both."
        )
    thresholds = np.unique(np.concatenate([hits, alarms]))
    missed = np.searchsorted(hits, thresholds, side="left") / len(hits)
    passed = 1 - np.searchsorted(alarms, thresholds, side="left") / len(alarms)
    best = int(np.argmin(np.abs(missed - passed)))
    rate = float(missed[best] + passed[best]) / 2
    return EqualError(rate, float(thresholds[best]), len(hits), len(alarms))


def verify(
    vectors: ArrayLike,
    speakers: Sequence[str],
    others: ArrayLike | None = None,
    resamples: int = _RESAMPLES,
) -> EqualError:
    """Return the equal error rate over all pairs of recordings, no recording with itself.

    The interval draws speakers anew, since recordings of one voice resemble one another; pairs of
    a speaker with its own copy are left out.

    Args:
        vectors: One of each recording, of length 1.
        speakers: Who speaks.
        others: The same recordings heard otherwise (degraded, say), in the same order: a pair is
            then a recording and another one as heard there. None pairs within `vectors`.
        resamples: How often speakers are drawn; 0 leaves the interval out.

    Raises:
        DataError: No pair of one speaker, or none of two.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    columns = rows if others is None else np.asarray(others, dtype=np.float64)
    cosines = rows @ columns.T
    kept = ~np.eye(len(rows), dtype=bool)
    if others is None:
        kept &= np.tri(len(rows), dtype=bool)
    names = np.asarray(speakers)
    equal = names[:, None] == names[None, :]
    found = equal_error_rate(cosines[kept & equal], cosines[kept & ~equal])
    if not resamples:
        return found
    places = [np.flatnonzero(names == name) for name in dict.fromkeys(speakers)]
    random = generator("verification", len(rows))
    rates = [_resampled(cosines, kept, places, random) for _ in range(resamples)]
    low, high = np.quantile([rate for rate in rates if rate is not None], [0.025, 0.975])
    return EqualError(
        found.rate, found.threshold, found.same, found.different, float(low), float(high)
    )


def _resampled(
    cosines: NDArray[np.float64],
    kept: NDArray[np.bool_],
    places: Sequence[NDArray[np.int64]],
    random: np.random.Generator,
) -> float | None:
    """Return the rate over speakers drawn with replacement; None where too few are left."""
    drawn = random.integers(len(places), size=len(places))
    rows = np.concatenate([places[speaker] for speaker in drawn])
    turn = np.repeat(np.arange(len(drawn)), [len(places[speaker]) for speaker in drawn])
    voice = np.repeat(drawn, [len(places[speaker]) for speaker in drawn])
    grid = np.ix_(rows, rows)
    whole, one, copy = (
        kept[grid],
        turn[:, None] == turn[None, :],
        voice[:, None] == voice[None, :],
    )
    same, different = cosines[grid][whole & one], cosines[grid][whole & ~copy]
    if not len(same) or not len(different):
        return None
    return equal_error_rate(same, different).rate
