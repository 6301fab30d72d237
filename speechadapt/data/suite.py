"""Task suites: a manifest whose rows name their tasks, and how tasks are mixed in training.

    p_t  ~  n_t ** (1 / temperature)        n_t: size of a task; 1 mixes by size, large T evenly

A row names its task in the field `task`. What is drawn at a step is a function of (seed, step).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechadapt.core.errors import ConfigError, DataError, near_misses
from speechadapt.core.seed import generator
from speechadapt.data.manifest import Utterance
from speechadapt.data.own import load_own

TASK = "task"


@dataclass(frozen=True)
class Suite:
    """Utterances by task.

    Args:
        tasks: Utterances of each task, in the manifest's order; tasks in the order they came.
    """

    tasks: Mapping[str, tuple[Utterance, ...]]

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def of(self, task: str) -> tuple[Utterance, ...]:
        """Return the utterances of one task.

        Args:
            task: Its name.

        Raises:
            DataError: There is no such task; near misses are named.
        """
        if task not in self.tasks:
            raise DataError(f"the suite has no task '{task}'.{near_misses(task, self.tasks)}")
        return self.tasks[task]

    def split(self, name: str) -> Suite:
        """Return the part of every task that is of one split.

        Args:
            name: `train`, `dev` or `test`.

        Raises:
            DataError: A task has no such rows.
        """
        parts = {
            task: tuple(row for row in rows if row.extra.get("split") == name)
            for task, rows in self.tasks.items()
        }
        empty = [task for task, rows in parts.items() if not rows]
        if empty:
            raise DataError(
                f"task '{empty[0]}' has no {name} rows. Give its rows a field 'split', or leave "
                "the task out."
            )
        return Suite(parts)

    def without(self, task: str) -> Suite:
        """Return the suite with one task left out.

        Args:
            task: Its name.

        Raises:
            DataError: There is no such task.
        """
        self.of(task)
        return Suite({name: rows for name, rows in self.tasks.items() if name != task})

    def shares(self, temperature: float = 1.0) -> dict[str, float]:
        """Return the probability of each task.

        Args:
            temperature: 1 mixes by the number of utterances; the higher, the more evenly.

        Raises:
            ConfigError: It is not above 0.
        """
        if not temperature > 0:
            raise ConfigError(f"a mix's temperature must be above 0, got {temperature:g}.")
        sizes = np.array([len(rows) for rows in self.tasks.values()], dtype=np.float64)
        powers = (sizes / sizes.max()) ** (1 / temperature)
        return dict(zip(self.tasks, (powers / powers.sum()).tolist(), strict=True))


def read_suite(path: Path) -> Suite:
    """Read a manifest whose rows name their tasks.

    Args:
        path: JSON lines, see `data.manifest`; audio relative to its folder.

    Raises:
        DataError: It cannot be read, is empty, or a row names no task.
    """
    return group(load_own(path), path.name)


def group(rows: Sequence[Utterance], source: str) -> Suite:
    """Group utterances by the task they name.

    Args:
        rows: Utterances with a field `task`.
        source: Where they come from, for messages.

    Raises:
        DataError: There is none, or one names no task.
    """
    tasks: dict[str, list[Utterance]] = {}
    for row in rows:
        name = row.extra.get(TASK)
        if not isinstance(name, str) or not name:
            raise DataError(
                f"row '{row.id}' of '{source}' names no task. Give every row a field '{TASK}'."
            )
        tasks.setdefault(name, []).append(row)
    if not tasks:
        raise DataError(f"'{source}' holds no rows, so there are no tasks in it.")
    return Suite({name: tuple(found) for name, found in tasks.items()})


def draw(
    suite: Suite, count: int, step: int, seed: int, temperature: float = 1.0
) -> list[tuple[str, Utterance]]:
    """Draw the rows of one step.

    Args:
        suite: What to draw from.
        count: Rows wanted.
        step: Of the training.
        seed: Of the run.
        temperature: See `Suite.shares`.

    Returns:
        Tasks and utterances, drawn with replacement.
    """
    random = generator(seed, "suite", step)
    shares = suite.shares(temperature)
    names = list(shares)
    tasks = random.choice(len(names), size=count, p=list(shares.values()))
    drawn = []
    for number in tasks.tolist():
        rows = suite.tasks[names[number]]
        drawn.append((names[number], rows[int(random.integers(len(rows)))]))
    return drawn
