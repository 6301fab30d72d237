"""The tables of a comparison on new languages."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench_claims import CLAIMS
from grid_plan import WHOLE, Line, Plan, Run, Runs, of_kind

from speechadapt.metrics.bootstrap import Interval, bootstrap_difference, bootstrap_ratio
from speechadapt.metrics.report import percent

MB = 1 << 20
MOST = 0.5
BAR = 0.1
HEADER = (
    "| arm | trained, of the encoder | rate | dev | test, 3 seeds | each seed | step | memory | "
    "file | merges |",
    "|---|---|---|---|---|---|---|---|---|---|",
)

NOTE = (
    "Written by `tools/grid.py --report` from the lines of the results file beside this page. "
    "Every arm had the same steps, batches and learning rates; the rate was chosen on dev "
    "with one seed, and three seeds at that rate were scored on test once. Sorted by the error on "
    "test. `trained` leaves the head out, `file` holds it too; `step` (processor "
    "time) and `memory` (resident, above the start of training) are of a fresh process with its "
    "batches ready."
)


def section(language: str, plan: Plan, lines: Sequence[Line]) -> list[str]:
    """Return the paragraphs about one language.

    Args:
        language: Its name.
        plan: What its runs were to be.
        lines: The lines of one protocol.
    """
    runs = of_kind(lines, "run")
    names = list(dict.fromkeys(run.arm for run in runs))
    parts = [f"## {language}", _facts(lines), *_test_table(plan, lines)]
    return [*parts, *search_table(plan, names, runs)]


def claimed(language: str, plan: Plan, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return the figure that the README shows of a language, where it is known and claimed.

    Args:
        language: Its name.
        plan: What its runs were to be.
        lines: The lines of one protocol.
    """
    claim, results = f"language_{language}", _scored(plan, lines)
    best = plan.best_adapter([one.name for one in results], of_kind(lines, "run"))
    if claim not in CLAIMS or best is None or "full" not in {one.name for one in results}:
        return []
    full, winner = _full_and(results, best)
    if not 0 < full.test.estimate <= MOST:
        return []
    between = winner.against(full)
    ends = (between.estimate, between.low, between.high)
    value, low, high = (1 + one / full.test.estimate for one in ends)
    method = f"`{best}`, three seeds; paired {full.test.description}"
    return [{"claim": claim, "value": value, "low": low, "high": high, "method": method}]


def search_table(plan: Plan, names: Sequence[str], runs: Runs) -> list[str]:
    """Return the paragraphs about the search for each arm's rate.

    Args:
        plan: What the runs were to be.
        names: Arms.
        runs: Finished runs.
    """
    head = ("arm", *(f"{rate:g}" for rate in plan.rates))
    rows = [head, ("---",) * len(head), *(_search_row(plan, name, runs) for name in names)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return ["Error on dev by learning rate, first seed:", table]


def _facts(lines: Sequence[Line]) -> str:
    first = next(one for one in lines if one["kind"] == "run")
    return (
        f"{first['score'].upper()} in per cent, {first['steps']} steps, {first['dev_items']} dev "
        f"items. {first['processor']}, {first['threads']} thread, {first['date']}; "
        f"`{first['command']}`, then the same with `--report`."
    )


def _search_row(plan: Plan, name: str, runs: Runs) -> tuple[str, ...]:
    found = [runs.get(run) for run in plan.search(name)]
    return (f"`{name}`", *("-" if one is None else f"{100 * one['dev']:.1f}" for one in found))


def _scored(plan: Plan, lines: Sequence[Line]) -> list[Arm]:
    """Return the arms of which every chosen run is scored on test, the lowest error first."""
    runs, tests = of_kind(lines, "run"), of_kind(lines, "test")
    costs = {one["arm"]: one for one in lines if one["kind"] == "cost"}
    names = plan.finished(list(dict.fromkeys(run.arm for run in runs)), runs)
    found = [
        Arm.of(name, chosen, runs, tests, costs.get(name))
        for name in names
        if tests.keys() >= {*(chosen := plan.chosen([name], runs))}
    ]
    return sorted(found, key=lambda one: one.test.estimate)


def _test_table(plan: Plan, lines: Sequence[Line]) -> list[str]:
    results = _scored(plan, lines)
    names = [one.name for one in results]
    if "full" not in names:
        return ["Not scored on test yet."]
    rows = "\n".join((*HEADER, *(one.row() for one in results)))
    said = f"{len(results[0].speakers)} test items; {results[0].test.description}."
    runs, tests = (of_kind(lines, kind) for kind in ("run", "test"))
    if again := sorted({run.arm for run in tests.keys() - {*plan.chosen(names, runs)}}):
        said += (
            f" Scored on test at another rate before: {', '.join(f'`{name}`' for name in again)}."
        )
    best = plan.best_adapter(names, runs)
    return [said, rows, *([] if best is None else [_verdict(results, best)])]


@dataclass(frozen=True)
class Arm:
    """What is known of one arm after three seeds.

    Args:
        name: The arm.
        run: A line of one of its runs.
        dev: Error on dev, the mean over the seeds.
        test: Error on test, the edits of all seeds together, items drawn with all their seeds.
        each: Error on test by seed.
        edits: Edits of every item, summed over the seeds.
        units: Reference units of every item, summed over the seeds.
        speakers: Who says it.
        cost: Its cost line, if there is one.
    """

    name: str
    run: Line
    dev: float
    test: Interval
    each: tuple[float, ...]
    edits: tuple[int, ...]
    units: tuple[int, ...]
    speakers: tuple[str | None, ...]
    cost: Line | None

    @classmethod
    def of(
        cls,
        name: str,
        chosen: Iterable[Run],
        runs: Runs,
        tests: Runs,
        cost: Line | None,
    ) -> Arm:
        """Return what the lines of an arm's chosen runs say."""
        own = [run for run in chosen if run.arm == name]
        found = [tests[run] for run in own]
        edits = tuple(map(sum, zip(*(one["edits"] for one in found), strict=True)))
        units = tuple(map(sum, zip(*(one["units"] for one in found), strict=True)))
        speakers = tuple(found[0]["speakers"])
        return cls(
            name,
            runs[own[0]],
            statistics.fmean(runs[run]["dev"] for run in own),
            bootstrap_ratio(edits, units, speakers),
            tuple(sum(one["edits"]) / sum(one["units"]) for one in found),
            edits,
            units,
            speakers,
            cost,
        )

    def against(self, other: Arm) -> Interval:
        """Return the difference of the errors on test, item by item."""
        return bootstrap_difference(self.edits, other.edits, self.units, self.speakers)

    def row(self) -> str:
        """Return the arm's row of the table."""
        run, cost = self.run, self.cost or {}
        step, memory = cost.get("step_s"), cost.get("memory")
        cells = (
            f"`{self.name}`",
            f"{100 * run['trained'] / run['encoder']:.1f} %",
            f"{run['rate']:g}",
            f"{100 * self.dev:.1f}",
            percent(self.test),
            ", ".join(f"{100 * one:.1f}" for one in self.each),
            "-" if step is None else f"{step:.2f} s",
            "-" if memory is None else f"{memory / MB:.0f} MiB",
            f"{run['file_bytes'] / 1000:,.0f} kB",
            "yes" if run["merges"] else "no" if self.name not in WHOLE else "-",
        )
        return "| " + " | ".join(cells) + " |"


def _full_and(results: Sequence[Arm], name: str) -> tuple[Arm, Arm]:
    by_name = {one.name: one for one in results}
    return by_name["full"], by_name[name]


def _verdict(results: Sequence[Arm], best: str) -> str:
    full, winner = _full_and(results, best)
    counts = full.test.estimate <= MOST
    rule = f"Full fine-tuning's error is {100 * full.test.estimate:.1f} %, " + (
        "so the language counts." if counts else f"above {MOST:.0%}: the language does not count."
    )
    between = winner.against(full)
    relative = between.estimate / full.test.estimate if full.test.estimate else math.nan
    adapters = [one for one in results if one.name not in WHOLE]
    lowest = min(adapters, key=lambda one: one.test.estimate)
    return (
        f"{rule} Best adapter on dev of the {len(adapters)} above: `{winner.name}`, "
        f"on test {100 * winner.test.estimate:.1f} %, "
        f"{100 * relative:+.0f} % relative to full fine-tuning (difference {percent(between)} "
        "points); "
        f"the bar is +{100 * BAR:.0f} %: {'met' if relative <= BAR else 'missed'}. "
        f"Lowest of the adapters on test: `{lowest.name}`, {100 * lowest.test.estimate:.1f} %."
    )
