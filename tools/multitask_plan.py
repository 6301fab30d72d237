"""What a comparison of ways to serve many tasks consists of, and what of it is still to be run.

An arm is a recipe of `recipes/multitask`; `single:<task>` and `single_lora:<task>` are one arm for
each task. Every arm is run at the same learning rates with the first seed; at the rate that is best
on dev it is run with the other seeds. Ways that train nothing are scored from finished runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grid_plan
from grid_plan import ROOT, Run, Runs, of_kind

from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.core.files import hash_json, read_lines

RECIPES = ROOT / "recipes" / "multitask"
HEAD = "head"
SINGLE, SINGLE_LORA = "single", "single_lora"
ORACLE, FULL = "oracle", "full"
RATES = (1e-3, 4e-3, 1.5e-2)
# Rates beside these, of arms whose best lay at the edge: all weights want less, low rank more.
MORE_RATES: Mapping[str, tuple[float, ...]] = {FULL: (2.5e-4,), SINGLE_LORA: (4e-2,)}
SEEDS = (1, 2, 3, 4, 5)
USUAL_SEEDS = 3

# Ways that are trained on the mix of all tasks, in the order in which they are run.
MAIN = (
    "shared",
    "full",
    "gated",
    "routed",
    "attention",
    "mhr_task",
    "mhr",
    "mhr_z",
    "hyper",
    "joint",
    "joint_routed",
)
# Those that come when all seeds of the others are done.
EXTRA = ("shared_lora", "shared_wide", "hyper_task", "hyper_small", "hyperformer")
MIXED = (*MAIN, *EXTRA)
FUSED = ("gated", "routed", "attention")
STARTS = {"mhr_z": "mhr_task"}

# Ways that train nothing beyond the single-task adapters: a composition of them, and of which.
FREE: Mapping[str, tuple[str, str]] = {
    "oracle": ("", SINGLE),
    "oracle_lora": ("", SINGLE_LORA),
    "retrieval_lora": ("auto({index}, threshold=1000)", SINGLE_LORA),
    "mean": ("fuse({parts}, method=mean)", SINGLE),
    "retrieval": ("auto({index})", SINGLE),
    "retrieval_3": ("auto({index}, top=3)", SINGLE),
    "retrieval_all": ("auto({index}, threshold=1000)", SINGLE),  # never left to the base
    "mera_wts": ("mera({parts}, method=wts)", SINGLE),
    "mera_avg": ("mera({parts}, method=avg)", SINGLE),
    "svd": ("svd({parts}, rank=4)", SINGLE_LORA),
    "average_lora": ("average({parts})", SINGLE_LORA),
    "ties": ("ties({parts}, density=0.2)", SINGLE_LORA),
    "dare": ("dare({parts}, density=0.5)", SINGLE_LORA),
}
# Ways that are told the task, or whose adapters are chosen by it.
TOLD = ("oracle", "oracle_lora", "mhr_task", "hyper_task")


def oracle_of(way: str) -> str:
    """Return the oracle that a way is compared with: its own adapters, told the task.

    Args:
        way: Any arm or way; one that has no single-task adapters is compared with `oracle`.
    """
    kind = FREE[way][1] if way in FREE else SINGLE
    return "oracle_lora" if kind == SINGLE_LORA else ORACLE


@dataclass(frozen=True)
class Plan:
    """Arms, rates and seeds.

    Args:
        tasks: The tasks of the suite.
        rates: Learning rates that every arm is tried with.
        seeds: Seeds; the first chooses the rate.
    """

    tasks: tuple[str, ...]
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = SEEDS[:USUAL_SEEDS]

    def singles(self, kind: str = SINGLE) -> tuple[str, ...]:
        """Return the arms of one kind of single-task adapters, in the order of the tasks."""
        return tuple(f"{kind}:{task}" for task in self.tasks)

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that is trained, in the order in which they are run."""
        return (HEAD, *self.singles(), *MAIN, *self.singles(SINGLE_LORA), *EXTRA)

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return arms by name, `single` standing for those of all tasks.

        Args:
            names: As given; all where empty.

        Raises:
            ConfigError: There is no such arm.
        """
        kinds = {kind: self.singles(kind) for kind in (SINGLE, SINGLE_LORA)}
        found: list[str] = []
        for name in names or self.arms:
            if name not in self.arms and name not in kinds:
                raise ConfigError(
                    f"there is no arm '{name}'.{near_misses(name, (*self.arms, *kinds))}"
                )
            found += kinds.get(name, (name,))
        return tuple(found)

    def rates_of(self, arm: str) -> tuple[float, ...]:
        """Return the learning rates that an arm is tried with."""
        return tuple(sorted({*MORE_RATES.get(kind_of(arm), ()), *self.rates}))

    def grid(self, arm: str) -> grid_plan.Plan:
        """Return the runs of one arm; a head has one seed, which serves all."""
        return grid_plan.Plan(
            (arm,), self.rates_of(arm), self.seeds[:1] if arm == HEAD else self.seeds
        )

    def of_seed(self, arm: str, seed: int, runs: Runs) -> Run | None:
        """Return an arm's run of one seed at its best rate, if it is finished.

        Args:
            arm: The arm.
            seed: The seed.
            runs: Finished runs.
        """
        rate = self.grid(arm).best_rates(arm, runs).get(self.seeds[0])
        run = None if rate is None else Run(arm, rate, self.seeds[0] if arm == HEAD else seed)
        return run if run in runs else None

    def needs(self, arm: str) -> tuple[str, ...]:
        """Return the arms whose runs of the same seed an arm starts from."""
        if arm == HEAD:
            return ()
        parts = self.singles() if arm in FUSED else ()
        return (HEAD, *parts, *((STARTS[arm],) if arm in STARTS else ()))

    def missing(self, names: Sequence[str], runs: Runs) -> list[Run]:
        """Return what is to be run next, in order, of arms that have what they start from.

        The runs that choose the rates of all arms come before those of other seeds, and both
        before the runs of `EXTRA`.

        Args:
            names: The arms.
            runs: Finished runs.
        """
        wanted = [run for arm in names for run in self.grid(arm).missing([arm], runs)]
        ready = [run for run in wanted if self._ready(run, runs)]
        return sorted(ready, key=lambda run: (run.arm in EXTRA, run.seed != self.seeds[0]))

    def _ready(self, run: Run, runs: Runs) -> bool:
        return all(self.of_seed(arm, run.seed, runs) is not None for arm in self.needs(run.arm))

    def finished(self, arm: str, runs: Runs) -> bool:
        """Say whether an arm has a run of every seed."""
        return not self.grid(arm).missing([arm], runs)


def recipe_of(arm: str) -> str:
    """Return the recipe of an arm."""
    return f"multitask/{kind_of(arm)}"


def kind_of(arm: str) -> str:
    """Return the name that the arms of all tasks share."""
    return arm.partition(":")[0]


def task_of(arm: str) -> str:
    """Return the task of a single-task arm; empty of all others."""
    return arm.partition(":")[2]


def protocol(suite: str, weights: str, rates: Sequence[float]) -> str:
    """Return a hash of all that the runs of a comparison have in common.

    Args:
        suite: Hash of the suite's manifest.
        weights: Hash of the base's weights.
        rates: The learning rates.
    """
    texts = {path.stem: _settings(path) for path in sorted(RECIPES.glob("*.yaml"))}
    return hash_json({"recipes": texts, "suite": suite, "weights": weights, "rates": rates})[:16]


def _settings(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_results(path: Path, version: str) -> list[dict[str, Any]]:
    """Return the lines of a results file that belong to one protocol.

    Args:
        path: The file; where there is none yet, it has no lines.
        version: As `protocol` gives it.
    """
    if not path.is_file():
        return []
    return [line for _, line in read_lines(path) if line["protocol"] == version]


def runs_of(lines: Iterable[Mapping[str, Any]]) -> Runs:
    """Return the finished runs among lines."""
    return of_kind(lines, "run")


def noted(lines: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Return the lines of one kind, in order."""
    return [one for one in lines if one["kind"] == kind]
