"""The adapters of the study on audio spectrogram transformers, on the folds of ESC-10.

Every fold is held out once; the fold's number is the seed. Rates are chosen on a share of the other
folds, in each fold by itself, by the plainest arm of a family, and the other arms of the family
take them. The arms of all placements have adapters of the same size. Beside the study's methods
stands `knitting_attention`.

Source: https://arxiv.org/abs/2312.03694
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grid_sounds_tables
import torch
from grid_plan import WHOLE, Line, Plan, Run
from grid_study import Batches, SharedInputs, Study
from torch import Tensor

from speechadapt.training.tasks import classify

SHOTS = 8
FEW = f"-{SHOTS}shot"
PLACES = {"": ("ffn",), "-houlsby": ("attn", "ffn")}
JOINS: Mapping[str, Mapping[str, Any]] = {
    "": {"order": "parallel", "residual": False},
    "-residual": {"order": "parallel", "residual": True},
    "-sequential": {"order": "sequential", "residual": True},
    "-sequential-plain": {"order": "sequential", "residual": False},
}


@dataclass(frozen=True)
class Family:
    """Adapters of one method.

    Args:
        method: The method.
        width: Of one adapter beside every feed-forward.
        half: Of two in every layer, together about as large.
        widths: The sweep's others.
    """

    method: str
    width: int
    half: int
    widths: tuple[int, ...]


# Equal columns have about as many parameters: 9.4 thousand a layer; in the sweep 1.7 and 37.
FAMILIES = {
    "bottleneck": Family("ast_bottleneck", 24, 12, (4, 96)),
    "conformer": Family("ast_conformer", 15, 7, (2, 62)),
}


KNITTING = "knitting"  # attention along both axes, the widest that is not larger than a column


@dataclass(frozen=True)
class Setting:
    """What an arm changes in the recipe.

    Args:
        family: The arm whose rates it takes.
        method: The method; empty for an arm without an adapter.
        adapter: The method's settings.
        roles: Where adapters stand.
        shots: Clips of each class that are trained on; 0 takes all.
    """

    family: str
    method: str = ""
    adapter: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    shots: int = 0


def _adapters(name: str, family: Family) -> Iterator[tuple[str, Setting]]:
    for place, roles in PLACES.items():
        for join, how in JOINS.items():
            width = family.width if len(roles) == 1 else family.half
            settings = {"bottleneck": width, **how}
            yield f"{name}{place}{join}", Setting(name, family.method, settings, roles)
    for width in family.widths:
        settings = {"bottleneck": width, **JOINS[""]}
        yield f"{name}-w{width}", Setting(name, family.method, settings, PLACES[""])


def _settings() -> dict[str, Setting]:
    found = {name: Setting(name) for name in WHOLE}
    for name, family in FAMILIES.items():
        found |= dict(_adapters(name, family))
    plain = found["conformer"]
    run_on = {**plain.adapter, "axis": "tokens"}
    found["conformer-tokens"] = dataclasses.replace(plain, adapter=run_on)
    found[KNITTING] = Setting(KNITTING, "knitting_attention", {"width": 16}, PLACES[""])
    few = {
        f"{name}{FEW}": dataclasses.replace(found[name], shots=SHOTS)
        for name in (*WHOLE, *FAMILIES)
    }
    return found | few


SETTINGS = _settings()
_FIRST = (*WHOLE, *FAMILIES)
_NEXT = (
    *(f"{name}{rest}" for rest in ("-sequential", "-houlsby", "-residual") for name in FAMILIES),
    KNITTING,
    *(f"{name}{FEW}" for name in _FIRST),
    *(f"{name}-w{one.widths[0]}" for name, one in FAMILIES.items()),
    *(f"{name}-w{one.widths[1]}" for name, one in FAMILIES.items()),
)
_ORDER = (*_FIRST, *_NEXT)
PLAN = Plan(
    arms=(*_ORDER, *(name for name in SETTINGS if name not in _ORDER)),
    rates=(1e-4, 3e-4, 1e-3, 3e-3, 8e-3),
    seeds=(1, 2, 3, 4),
    each=True,
    leaders={name: one.family for name, one in SETTINGS.items()},
)


class Sounds(Study):
    """The comparison on ESC-10.

    Args:
        plan: Its runs.
    """

    subject = "corpus"
    results = "sounds"
    title = "Ten classes of sound: bottleneck and convolution adapters"
    note = grid_sounds_tables.NOTE
    name = "esc10"
    recipe = "adapt/sounds_folds"

    def __init__(self, plan: Plan = PLAN) -> None:
        self.plan = plan
        self._heads: dict[tuple[int, int], dict[str, Tensor]] = {}

    def common(self) -> dict[str, Any]:
        """Return rates, folds and arms; see `Study.common`."""
        arms = {name: dataclasses.asdict(one) for name, one in SETTINGS.items()}
        return {"rates": self.plan.rates, "folds": self.plan.seeds, "arms": arms}

    def config(self, recipe: classify.Config, run: Run) -> classify.Config:
        """Return the recipe's settings with arm, fold and rate; see `Study.config`."""
        setting = SETTINGS[run.arm]
        trainer = dataclasses.replace(
            recipe.trainer,
            learning_rate=run.rate,
            seed=run.seed,
            evaluate_every=recipe.trainer.steps,
        )
        changes: dict[str, Any] = {
            "trainer": trainer,
            "clips": dataclasses.replace(recipe.clips, fold=run.seed, shots=setting.shots),
            "adapter_rate": None,
            "head_rate": None,
        }
        if not setting.method:
            return dataclasses.replace(recipe, arm=setting.family, **changes)
        adapter = {"method": setting.method, "adapter": setting.adapter, "roles": setting.roles}
        return dataclasses.replace(recipe, arm="adapter", **adapter, **changes)

    def build(self, config: classify.Config, run: Run, batches: Batches) -> Any:
        """Return the task of a run; see `Study.build`."""
        objective = classify.ClassifyObjective(config)
        key = (run.seed, config.clips.shots)
        if key in self._heads:
            objective.head.load_state_dict(self._heads[key])
        else:
            objective.start_head()
            state = objective.head.state_dict()
            self._heads[key] = {name: tensor.clone() for name, tensor in state.items()}
        shared = SharedInputs(objective.batch, batches, key)
        objective.batch = shared.batch  # type: ignore[method-assign]
        return objective

    def facts(self, config: classify.Config, report: Mapping[str, Any]) -> dict[str, Any]:
        """Return the dev error; see `Study.facts`."""
        dev = report["dev"]
        shots = config.clips.shots
        return {"score": "error", "dev": dev["error"], "dev_items": dev["items"], "shots": shots}

    def score(self, config: classify.Config, folder: Path) -> dict[str, Any]:
        """Classify the clips of the held-out fold; see `Study.score`."""
        objective = classify.ClassifyObjective(config)
        objective.restore(folder)
        objective.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        missed = objective.misses("test")
        return {
            "score": "error",
            "edits": [int(one) for one in missed],
            "units": [1] * len(missed),
            "items": [item.id for item in objective.clips.test],
        }

    def section(self, name: str, lines: Sequence[Line]) -> list[str]:
        """Return the tables; see `Study.section`."""
        return grid_sounds_tables.section(name, self.plan, lines)
