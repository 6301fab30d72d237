"""What `grid.py` must know of a comparison: its recipe, its runs, and what is noted of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from grid_plan import ROOT, Line, Plan, Run

from speechadapt.core.files import hash_json
from speechadapt.training.objective import Batch, Objective

Batches = dict[tuple[Any, ...], Batch]


class SharedInputs:
    """Makes each batch once for all runs that are to see the same.

    Args:
        make: Builds the batch of a step; see `Objective.batch`.
        store: Batches made before, by what they hang on and step.
        key: What the batches of this run hang on beside the step.
    """

    def __init__(self, make: Callable[..., Batch], store: Batches, key: tuple[Any, ...]) -> None:
        self.make = make
        self.store = store
        self.key = key

    def batch(self, step: int, rank: int, *more: Any) -> Batch:
        """Return the batch of one step on one process.

        Args:
            step: Micro-step, from 0.
            rank: Process number.
            more: What else `make` wants to know.
        """
        key = (*self.key, step, rank)
        if key not in self.store:
            self.store[key] = self.make(step, rank, *more)
        return dict(self.store[key])


class Study(ABC):
    """A comparison of arms on one recipe.

    Attributes:
        subject: The word for what is adapted to; the key of its name in the lines of the results.
        results: Stem of the files in `docs/results`.
        title: Of the page of tables.
        note: What stands at its top.
        name: What is adapted to.
        recipe: The recipe that all runs share.
        plan: The runs.
        needed: Arms without which there is nothing to compare with.
    """

    subject: ClassVar[str]
    note: ClassVar[str]
    results: str
    title: str
    name: str
    recipe: str
    plan: Plan
    needed: tuple[str, ...] = ("full",)

    def protocol(self, weights: str) -> str:
        """Return a hash of all that the runs have in common.

        Args:
            weights: Hash of the base's weights.
        """
        text = (ROOT / "recipes" / f"{self.recipe}.yaml").read_text(encoding="utf-8")
        return hash_json({"recipe": yaml.safe_load(text), "weights": weights, **self.common()})[:16]

    @abstractmethod
    def common(self) -> Mapping[str, Any]:
        """Return what else the runs have in common, as JSON values."""

    @abstractmethod
    def config(self, recipe: Any, run: Run) -> Any:
        """Return the settings of a run.

        Args:
            recipe: The recipe's.
            run: Which one.
        """

    @abstractmethod
    def build(self, config: Any, run: Run, batches: Batches) -> Objective:
        """Return the task of a run, whose batches are those of every other arm.

        Args:
            config: Its settings.
            run: Which one.
            batches: Those made before.
        """

    @abstractmethod
    def facts(self, config: Any, report: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a line says of a finished run beside what all lines say; `dev` is its error.

        Args:
            config: Its settings.
            report: What it wrote at its end.
        """

    @abstractmethod
    def score(self, config: Any, folder: Path) -> dict[str, Any]:
        """Return what a line says of a run's test score; `edits` and `units` are of every item.

        Args:
            config: Its settings.
            folder: What it saved.
        """

    def cost(self, config: Any) -> dict[str, Any] | None:
        """Return what a line says of an arm's cost; None where it is not measured apart.

        Args:
            config: Settings of one of its runs.
        """
        del config
        return None

    @abstractmethod
    def section(self, name: str, lines: Sequence[Line]) -> list[str]:
        """Return the paragraphs of the page about one subject.

        Args:
            name: What it is.
            lines: The lines of one protocol.
        """

    def claimed(self, name: str, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Return the figures of one subject that the README shows.

        Args:
            name: What it is.
            lines: The lines of one protocol.
        """
        del name, lines
        return []
