"""What a comparison of adaptation arms consists of, and what of it is still to be run.

A results file holds one JSON line per finished run, test score or cost. Lines of another protocol
(another recipe, other rates, another base) stay in the file and are passed over.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechadapt.core.files import read_lines

ROOT = Path(__file__).resolve().parents[1]
# Arms beside the methods: every weight, and none but the head's.
WHOLE = ("full", "head")

Line = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Run:
    """One training run of a grid.

    Args:
        arm: `full`, `head` or an arm with an adapter.
        rate: Peak learning rate of all that is trained.
        seed: Of the run; in a cross-validation also the fold that is held out.
    """

    arm: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """The run's name, which its folder has."""
        return f"{self.arm}-{self.rate:g}-s{self.seed}"


Runs = Mapping[Run, Line]


@dataclass(frozen=True)
class Plan:
    """The runs of a comparison: every arm gets the same rates and is repeated alike.

    Args:
        arms: Their names, in the order they come.
        rates: Learning rates that an arm's is chosen from, on dev.
        seeds: Of the runs whose test scores are reported.
        each: Whether every seed chooses a rate by itself, as the folds of a cross-validation must;
            else the first one chooses for all.
        leaders: For arms that try no rates of their own, the arm whose rates they take.
    """

    arms: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    each: bool = False
    leaders: Mapping[str, str] = field(default_factory=dict)

    def search(self, name: str) -> list[Run]:
        """Return the runs that choose an arm's rate.

        Args:
            name: The arm.
        """
        leader = self.leaders.get(name, name)
        seeds = self.seeds if self.each else self.seeds[:1]
        return [Run(leader, rate, seed) for seed in seeds for rate in self.rates]

    def best_rates(self, name: str, runs: Runs) -> dict[int, float]:
        """Return the rate of an arm's runs by seed: that with the lowest error on dev.

        Of equal errors the lower rate is taken. A seed whose search is not done is left out.

        Args:
            name: The arm.
            runs: Finished runs.
        """
        found = {}
        for seed in self.seeds:
            searched = [one for one in self.search(name) if not self.each or one.seed == seed]
            if all(one in runs for one in searched):
                found[seed] = min((runs[one]["dev"], one.rate) for one in searched)[1]
        return found

    def chosen(self, names: Sequence[str], runs: Runs) -> list[Run]:
        """Return the runs whose test score is reported: arms at their best rates, every seed.

        Args:
            names: The arms.
            runs: Finished runs.
        """
        rates = {name: self.best_rates(name, runs) for name in names}
        return [
            Run(name, rates[name][seed], seed)
            for seed in self.seeds
            for name in names
            if seed in rates[name]
        ]

    def missing(self, names: Sequence[str], runs: Runs) -> list[Run]:
        """Return what is to be run next, arm by arm: what chooses its rate, or else the rest.

        Args:
            names: The arms.
            runs: Finished runs.
        """
        missing: list[Run] = []
        for name in names:
            first = [run for run in self.search(name) if run not in runs]
            missing += first or [run for run in self.chosen([name], runs) if run not in runs]
        return list(dict.fromkeys(missing))

    def finished(self, names: Sequence[str], runs: Runs) -> list[str]:
        """Return the arms of which nothing is still to be run.

        Args:
            names: The arms.
            runs: Finished runs.
        """
        return [name for name in names if not self.missing([name], runs)]

    def best_adapter(self, names: Sequence[str], runs: Runs) -> str | None:
        """Return the arm with an adapter that has the lowest mean error on dev over all seeds.

        Args:
            names: The arms.
            runs: Finished runs.

        Returns:
            One of the finished arms; None where none of them has an adapter.
        """
        done = [name for name in self.finished(names, runs) if name not in WHOLE]
        chosen = self.chosen(done, runs)
        means = {
            name: statistics.fmean(runs[run]["dev"] for run in chosen if run.arm == name)
            for name in done
        }
        return min(means, key=lambda name: (means[name], name), default=None)


def read_results(path: Path, key: str, name: str, version: str) -> list[dict[str, Any]]:
    """Return the lines of a results file that belong to one protocol of one comparison.

    Args:
        path: The file; where there is none yet, it has no lines.
        key: What its lines are about, such as `language`.
        name: Which one.
        version: Hash of what its runs have in common.
    """
    if not path.is_file():
        return []
    lines = [line for _, line in read_lines(path)]
    return [one for one in lines if (one[key], one["protocol"]) == (name, version)]


def of_kind(lines: Iterable[Line], kind: str) -> dict[Run, Line]:
    """Return the lines about runs, by run.

    Args:
        lines: As `read_results` gives them.
        kind: `run` or `test`.
    """
    return {Run(one["arm"], one["rate"], one["seed"]): one for one in lines if one["kind"] == kind}
