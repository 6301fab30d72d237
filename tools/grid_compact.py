"""Compact adapters against the method they are made of: bits, sparsity, experts.

Arms of one group have as much of one thing: stored bits (the low-bit ones), trained entries or
inference cost (the sparse ones, the experts). Every arm chooses its rate by itself, as low
precision and large widths want other ones.

Source: https://arxiv.org/abs/2307.16867 (bits at equal storage), https://arxiv.org/abs/2210.04284
    (SNIP, Large-Sparse), https://arxiv.org/abs/2312.02923 (experts)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grid_compact_tables
import grid_languages
from grid_plan import Line, Plan, Run
from grid_study import Batches, Study

from speechadapt.training.tasks import adapt

BITS = (8, 4, 2, 1)
RANK = 2  # of full precision; b bits have room for 32 / b times as much
STRENGTH = 2.0  # alpha / rank
WIDTH = 32


@dataclass(frozen=True)
class Arm:
    """What an arm changes in the recipe.

    Args:
        method: The method.
        adapter: Its settings.
    """

    method: str
    adapter: Mapping[str, Any] = field(default_factory=dict)


def _lora(rank: int) -> dict[str, Any]:
    return {"rank": rank, "alpha": STRENGTH * rank}


def _beside(width: int) -> dict[str, Any]:
    return {"bottleneck": width, "input": "normed"}


def _arms() -> dict[str, Arm]:
    dense = _beside(WIDTH)
    found = {"lora-32bit": Arm("lora", _lora(RANK))}
    for bits in BITS:
        settings = {"host": "lora", "settings": _lora(RANK * 32 // bits), "bits": bits}
        found[f"lora-{bits}bit"] = Arm("low_bit", settings)
    found["parallel-32bit"] = Arm("parallel", _beside(RANK))
    found["parallel-1bit"] = Arm("low_bit", {"settings": _beside(RANK * 32)})
    found["parallel"] = Arm("parallel", dense)
    for score in ("snip", "magnitude", "random"):
        found[f"{score}-60"] = Arm("sparse", {"settings": dense, "density": 0.6, "score": score})
    found["large-sparse"] = Arm("sparse", {"settings": dense, "density": 0.2, "large": True})
    for merge in ("mean", "union"):
        found[f"mosa-{merge}"] = Arm("mosa", {"settings": dense, "merge": merge})
    return found


ARMS = _arms()
_FIRST = ("lora-32bit", "lora-1bit", "parallel", "snip-60", "large-sparse", "mosa-mean")
PLAN = Plan(
    arms=(*_FIRST, *(name for name in ARMS if name not in _FIRST)),
    rates=(1e-3, 3e-3, 8e-3),
    seeds=(1, 2, 3),
)


class Compact(Study):
    """The comparison on Arabic command words.

    Args:
        plan: Its runs.
    """

    subject = "corpus"
    results = "compact"
    title = "Compact adapters: bits, sparsity, experts"
    note = grid_compact_tables.NOTE
    name = "asc"
    recipe = "adapt/compact"
    needed = ("lora-32bit", "parallel")

    def __init__(self, plan: Plan = PLAN) -> None:
        self.plan = plan

    def common(self) -> dict[str, Any]:
        """Return rates, seeds and arms; see `Study.common`."""
        arms = {name: dataclasses.asdict(one) for name, one in ARMS.items()}
        return {"rates": self.plan.rates, "seeds": self.plan.seeds, "arms": arms}

    def config(self, recipe: adapt.Config, run: Run) -> adapt.Config:
        """Return the recipe's settings with arm, rate and seed; see `Study.config`."""
        arm, steps = ARMS[run.arm], recipe.trainer.steps
        trainer = dataclasses.replace(
            recipe.trainer, learning_rate=run.rate, seed=run.seed, evaluate_every=steps
        )
        changes = {"arm": "adapter", "method": arm.method, "adapter": arm.adapter}
        rates = {"adapter_rate": None, "head_rate": None}
        return dataclasses.replace(recipe, trainer=trainer, **changes, **rates)

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
        return grid_compact_tables.section(name, self.plan, lines)
