"""The matrix of adapters and tasks: error rates, their mean over the tasks, the gap to an oracle.

The oracle knows the task of every utterance and lets the adapter speak that is called like it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

TaskRates = Mapping[str, Mapping[str, float]]
Matrix = dict[str, dict[str, dict[str, float]]]

BASE = "(base)"
ORACLE = "(oracle)"


def macro(rates: TaskRates, rate: str) -> float:
    """Return the mean of a rate over the tasks, every task counting alike.

    Args:
        rates: `wer` and `cer` by task.
        rate: Which of them.
    """
    values = [one[rate] for one in rates.values()]
    return sum(values) / len(values) if values else math.nan


def oracle(matrix: Mapping[str, TaskRates]) -> dict[str, Mapping[str, float]]:
    """Return the rates where the task is known: of every task those of the adapter called like it.

    Args:
        matrix: Rates by adapter and task.

    Returns:
        By task; tasks that no adapter is called like are left out.
    """
    tasks = dict.fromkeys(task for row in matrix.values() for task in row)
    return {task: matrix[task][task] for task in tasks if task in matrix and task in matrix[task]}


def matrix_rows(matrix: Mapping[str, TaskRates], rate: str) -> list[list[str]]:
    """Return a table in per cent: adapters by tasks, their mean, and the gap to the oracle.

    Args:
        matrix: Rates by adapter and task.
        rate: `wer` or `cer`.
    """
    tasks = list(dict.fromkeys(task for row in matrix.values() for task in row))
    best = oracle(matrix)
    whole = len(best) == len(tasks)
    rows = [["", *tasks, "mean", "to the oracle"]]
    for name, row in (dict(matrix) | ({ORACLE: best} if whole else {})).items():
        mean, lowest = macro(row, rate), macro(best, rate)
        gap = f"{100 * (mean / lowest - 1):+.1f} %" if whole and lowest else "-"
        cells = [f"{100 * row[task][rate]:.1f}" if task in row else "-" for task in tasks]
        rows.append([name, *cells, f"{100 * mean:.1f}", gap])
    return rows


def matrix_lines(matrix: Mapping[str, TaskRates], rate: str) -> list[str]:
    """Return the table as lines for people, columns aligned.

    Args:
        matrix: Rates by adapter and task.
        rate: `wer` or `cer`.
    """
    rows = matrix_rows(matrix, rate)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_aligned(cells, widths) for cells in rows]
    return [f"{rate.upper()} % on dev, adapters by tasks:", *lines]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
