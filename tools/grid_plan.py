"""What a comparison of adaptation arms consists of, and what of it is still to be run.

A results file holds one JSON line per finished run, test score or cost. Lines of another protocol
(another recipe, other rates, another base) stay in the file and are passed over.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.core.files import hash_json, read_lines

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "adapt"
PREFIX = "language_"
RATES = (5e-4, 1e-3, 3e-3, 8e-3)
SEEDS = (1, 2, 3)
SHARE = 0.04

# Arms beside the methods: every weight, and none but the head's.
WHOLE = ("full", "head")
# Methods that adapt one encoder to one kind of speech, each by itself.
METHODS = (
    "adapter_bias",
    "ast_bottleneck",
    "ast_conformer",
    "houlsby",
    "hydra_heads",
    "linear_bottleneck",
    "lora",
    "native_length",
    "parallel",
    "pfeiffer",
    "pissa",
)
ARMS = (*WHOLE, *METHODS)
# Settings that are not left at a method's defaults; widths follow from the budget.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "native_length": {"rank": 16},  # of stem convolutions, where the encoder has any
    "parallel": {"scale_kind": "learned"},
}


@dataclass(frozen=True, order=True)
class Run:
    """One training run of a grid.

    Args:
        arm: `full`, `head` or an adapter method.
        rate: Peak learning rate of all that is trained.
        seed: Of the run.
    """

    arm: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """The run's name, which its folder has."""
        return f"{self.arm}-{self.rate:g}-s{self.seed}"


def languages() -> list[str]:
    """Return the languages that have a recipe."""
    return sorted(path.stem.removeprefix(PREFIX) for path in RECIPES.glob(f"{PREFIX}*.yaml"))


def recipe_of(language: str) -> str:
    """Return the name of a language's recipe.

    Raises:
        ConfigError: It has none.
    """
    known = languages()
    if language not in known:
        raise ConfigError(f"there is no language '{language}'.{near_misses(language, known)}")
    return f"adapt/{PREFIX}{language}"


def protocol(language: str, weights: str) -> str:
    """Return a hash of all that the runs of a language have in common.

    Args:
        language: A name of `languages`.
        weights: Hash of the base's weights.
    """
    text = (ROOT / "recipes" / f"{recipe_of(language)}.yaml").read_text(encoding="utf-8")
    common = {
        "recipe": yaml.safe_load(text),
        "rates": RATES,
        "seeds": SEEDS,
        "share": SHARE,
        "settings": {name: dict(values) for name, values in SETTINGS.items()},
        "weights": weights,
    }
    return hash_json(common)[:16]


def read_results(path: Path, language: str, version: str) -> list[dict[str, Any]]:
    """Return the lines of a results file that belong to one protocol of one language.

    Args:
        path: The file; where there is none yet, it has no lines.
        language: A name of `languages`.
        version: As `protocol` gives it.
    """
    if not path.is_file():
        return []
    lines = [line for _, line in read_lines(path)]
    return [one for one in lines if (one["language"], one["protocol"]) == (language, version)]


def of_kind(lines: Iterable[Mapping[str, Any]], kind: str) -> dict[Run, Mapping[str, Any]]:
    """Return lines of one kind by their run.

    Args:
        lines: As `read_results` gives them.
        kind: `run` or `test`.
    """
    return {Run(one["arm"], one["rate"], one["seed"]): one for one in lines if one["kind"] == kind}


def best_rates(names: Sequence[str], runs: Mapping[Run, Mapping[str, Any]]) -> dict[str, float]:
    """Return each arm's learning rate with the lowest error on dev, of the first seed.

    Of equal errors the lower rate is taken. An arm whose runs are not all there is left out.

    Args:
        names: The arms.
        runs: Finished runs.
    """
    found = {}
    for name in names:
        scores = [(runs[run]["dev"], run.rate) for run in first_runs([name]) if run in runs]
        if len(scores) == len(RATES):
            found[name] = min(scores)[1]
    return found


def first_runs(names: Sequence[str]) -> list[Run]:
    """Return the runs that choose the rates: every arm at every rate, with the first seed."""
    return [Run(name, rate, SEEDS[0]) for name in names for rate in RATES]


def chosen_runs(names: Sequence[str], runs: Mapping[Run, Mapping[str, Any]]) -> list[Run]:
    """Return the runs whose test score is reported: every arm at its best rate, with every seed.

    Args:
        names: The arms.
        runs: Finished runs.
    """
    rates = best_rates(names, runs)
    return [Run(name, rates[name], seed) for seed in SEEDS for name in names if name in rates]


def missing_runs(names: Sequence[str], runs: Mapping[Run, Mapping[str, Any]]) -> list[Run]:
    """Return what is to be run next, arm by arm: what chooses its rate, or else the other seeds.

    Args:
        names: The arms.
        runs: Finished runs.
    """
    missing = []
    for name in names:
        first = [run for run in first_runs([name]) if run not in runs]
        missing += first or [run for run in chosen_runs([name], runs) if run not in runs]
    return missing


def finished_arms(names: Sequence[str], runs: Mapping[Run, Mapping[str, Any]]) -> list[str]:
    """Return the arms of which nothing is still to be run.

    Args:
        names: The arms.
        runs: Finished runs.
    """
    return [name for name in names if not missing_runs([name], runs)]


def best_adapter(names: Sequence[str], runs: Mapping[Run, Mapping[str, Any]]) -> str | None:
    """Return the method with the lowest mean error on dev over all seeds.

    Args:
        names: The arms.
        runs: Finished runs.

    Returns:
        One of the finished arms that have an adapter; None where there is none.
    """
    done = [name for name in finished_arms(names, runs) if name not in WHOLE]
    chosen = chosen_runs(done, runs)
    means = {
        name: statistics.fmean(runs[run]["dev"] for run in chosen if run.arm == name)
        for name in done
    }
    return min(means, key=lambda name: (means[name], name), default=None)
