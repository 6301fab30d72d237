"""Mean error rates over several tasks, and paired comparisons of them, with bootstrap intervals.

Every task counts alike, whatever its size. The items of each task are drawn anew, by whole speakers
where there are several; the same draws serve every system, so what makes an item hard for all does
not widen an interval between two.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechadapt.core.errors import DataError
from speechadapt.core.seed import generator
from speechadapt.metrics.bootstrap import RESAMPLES, clusters_of, resampled, sum_by


@dataclass(frozen=True)
class TaskEdits:
    """What one system did on one task.

    Args:
        edits: One number per item.
        units: Reference units per item.
        speakers: Who says it, per item.
    """

    edits: tuple[float | int, ...]
    units: tuple[int, ...]
    speakers: tuple[str | None, ...]


@dataclass(frozen=True)
class MacroInterval:
    """A figure over several tasks and how far it can be trusted.

    Args:
        estimate: The figure.
        low: Lower end.
        high: Upper end.
    """

    estimate: float
    low: float
    high: float


def macro_rate(tasks: Sequence[TaskEdits], level: float = 0.95) -> MacroInterval:
    """Bracket the mean of the tasks' error rates.

    Args:
        tasks: One entry per task.
        level: Coverage of the interval.

    Raises:
        DataError: There is no task, or one has no reference units.
    """
    return _bracket(_mean(tasks), _drawn(tasks), level)


def macro_relative(
    first: Sequence[TaskEdits], second: Sequence[TaskEdits], level: float = 0.95
) -> MacroInterval:
    """Bracket the relative difference of two systems' mean rates, `first / second - 1`.

    Args:
        first: One entry per task.
        second: The same items of the same tasks by the other system.
        level: Coverage of the interval.

    Raises:
        DataError: The items differ, there is no task, or one has no reference units.
    """
    same = [(one.units, one.speakers) for one in first]
    if same != [(one.units, one.speakers) for one in second]:
        raise DataError("two systems were to be compared, but they were scored on other items.")
    draws = _drawn(first) / _drawn(second) - 1
    return _bracket(_mean(first) / _mean(second) - 1, draws, level)


def averaged(runs: Sequence[Sequence[TaskEdits]]) -> list[TaskEdits]:
    """Return runs of one system with several seeds as one: every item with its mean edits.

    Args:
        runs: By seed, tasks in the same order.
    """
    return [
        TaskEdits(
            tuple(map(statistics.fmean, zip(*(one.edits for one in seeds), strict=True))),
            seeds[0].units,
            seeds[0].speakers,
        )
        for seeds in zip(*runs, strict=True)
    ]


def _mean(tasks: Sequence[TaskEdits]) -> float:
    if not tasks or not all(sum(one.units) for one in tasks):
        raise DataError("a mean over tasks needs tasks, each with reference units.")
    return float(np.mean([sum(one.edits) / sum(one.units) for one in tasks]))


def _drawn(tasks: Sequence[TaskEdits]) -> NDArray[np.float64]:
    rates = []
    for number, task in enumerate(tasks):
        _, names = clusters_of(len(task.edits), task.speakers)
        above = sum_by(names, np.asarray(task.edits, dtype=np.float64))
        below = sum_by(names, np.asarray(task.units, dtype=np.float64))
        rates.append(resampled(above, below, RESAMPLES, generator("macro", number)))
    return np.asarray(np.mean(rates, axis=0))


def _bracket(estimate: float, draws: NDArray[np.float64], level: float) -> MacroInterval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return MacroInterval(estimate, float(low), float(high))
