"""Comparisons of named arms on Arabic command words: a method, its settings and its places each.

Every arm chooses its learning rate by itself, as low precision, large widths and routing want other
ones. Which comparisons there are stands in `grid_comparisons.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grid_arms_tables
import grid_languages
from grid_arms_tables import Claim
from grid_plan import WHOLE, Line, Plan, Run
from grid_study import Batches, Study

from speechadapt.training.tasks import adapt

RATES = (2e-3, 6e-3, 1.5e-2)
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Arm:
    """What an arm changes in the recipe.

    Args:
        method: The method; `full` and `head` have none.
        adapter: Its settings.
        roles: Where adapters stand; none takes the method's own.
    """

    method: str = ""
    adapter: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Arms that are compared with one another.

    Args:
        name: What `grid.py` is called with, and the stem of its files.
        title: Of its page.
        arms: By name, in the order in which they are trained.
        claims: What the comparison is to show.
        needed: Arms without which there is nothing to compare with.
    """

    name: str
    title: str
    arms: Mapping[str, Arm]
    claims: tuple[Claim, ...]
    needed: tuple[str, ...]


class NamedArms(Study):
    """A comparison, as `grid.py` runs it.

    Args:
        comparison: Its arms and claims.
        rates: Learning rates that an arm's is chosen from.
        seeds: Of the runs whose test scores are reported.
    """

    subject = "corpus"
    note = grid_arms_tables.NOTE
    name = "asc"
    recipe = "adapt/compact"

    def __init__(
        self,
        comparison: Comparison,
        rates: Sequence[float] = RATES,
        seeds: Sequence[int] = SEEDS,
    ) -> None:
        self.comparison = comparison
        self.results, self.title = comparison.name, comparison.title
        self.needed = comparison.needed
        self.plan = Plan(tuple(comparison.arms), tuple(rates), tuple(seeds))

    def common(self) -> dict[str, Any]:
        """Return rates, seeds and arms; see `Study.common`."""
        arms = {name: dataclasses.asdict(one) for name, one in self.comparison.arms.items()}
        return {"rates": self.plan.rates, "seeds": self.plan.seeds, "arms": arms}

    def config(self, recipe: adapt.Config, run: Run) -> adapt.Config:
        """Return the recipe's settings with arm, rate and seed; see `Study.config`."""
        arm, steps = self.comparison.arms[run.arm], recipe.trainer.steps
        trainer = dataclasses.replace(
            recipe.trainer, learning_rate=run.rate, seed=run.seed, evaluate_every=steps
        )
        changes: dict[str, Any] = {"trainer": trainer, "adapter_rate": None, "head_rate": None}
        if run.arm in WHOLE:
            return dataclasses.replace(recipe, arm=run.arm, **changes)
        adapter = {"method": arm.method, "adapter": arm.adapter, "roles": arm.roles}
        return dataclasses.replace(recipe, arm="adapter", **adapter, **changes)

    def build(self, config: adapt.Config, run: Run, batches: Batches) -> adapt.AdaptObjective:
        """Return the task of a run; see `Study.build`."""
        return grid_languages.build(config, run, batches)

    def facts(self, config: adapt.Config, report: Mapping[str, Any]) -> dict[str, Any]:
        """Return the dev scores; see `Study.facts`."""
        return grid_languages.facts(config, report)

    def score(self, config: adapt.Config, folder: Path) -> dict[str, Any]:
        """Transcribe the test recordings and count edits; see `Study.score`."""
        return grid_languages.score(config, folder)

    def cost(self, config: adapt.Config) -> dict[str, Any]:
        """Return an arm's step time and memory; see `Study.cost`."""
        return grid_languages.cost_apart(config)

    def section(self, name: str, lines: Sequence[Line]) -> list[str]:
        """Return the tables; see `Study.section`."""
        return grid_arms_tables.section(name, self.plan, lines, self.comparison.claims)
