"""The tables of comparisons of named arms, and what they say of their claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from grid_plan import Line, Plan, of_kind
from grid_tables import HEADER, Arm, search_table

from speechadapt.metrics.bootstrap import bootstrap_difference
from speechadapt.metrics.report import percent

NOTE = (
    "Written by `tools/grid.py --report` from the lines of the results file beside this page. "
    "Every arm had the same steps, batches and learning rates; the rate was chosen on dev with one "
    "seed, and three seeds at that rate were scored on test once. Sorted by the error on test. "
    "`trained` leaves the head and entries held at zero out, `file` holds the head too; `step` "
    "(processor time) and `memory` (resident, above the start of training) are of a fresh process. "
    "A claim's bar is on the upper end of the paired difference, as a share of the other arm's "
    "error. Items are drawn, so it says little about other speakers."
)


@dataclass(frozen=True)
class Claim:
    """That an arm is not worse than another by more than a share of its error.

    Args:
        text: What it says.
        arm: The arm it is about.
        other: What it is compared with.
        most: That share, which the upper end of the difference may reach; 0 says that it is better.
    """

    text: str
    arm: str
    other: str
    most: float = 0.1


def section(name: str, plan: Plan, lines: Sequence[Line], claims: Sequence[Claim]) -> list[str]:
    """Return the paragraphs about one corpus.

    Args:
        name: The corpus.
        plan: What its runs were to be.
        lines: The lines of one protocol.
        claims: What the comparison is to show.
    """
    runs, tests = of_kind(lines, "run"), of_kind(lines, "test")
    names = list(dict.fromkeys(run.arm for run in runs))
    done = [
        one for one in plan.finished(names, runs) if tests.keys() >= {*plan.chosen([one], runs)}
    ]
    costs = {one["arm"]: one for one in lines if one["kind"] == "cost"}
    arms = {one: Arm.of(one, plan.chosen([one], runs), runs, tests, costs.get(one)) for one in done}
    ranked = sorted(arms.values(), key=lambda one: one.test.estimate)
    parts = [f"## {name}", _facts(lines)]
    if ranked:
        said = f"{len(ranked[0].speakers)} test items; {ranked[0].test.description}."
        parts += [said, "\n".join((*HEADER, *(one.row() for one in ranked)))]
    judged = [verdict(one, arms) for one in claims if {one.arm, one.other} <= arms.keys()]
    if judged:
        parts += ["\n".join(judged)]
    return [*parts, *search_table(plan, names, runs)]


def _facts(lines: Sequence[Line]) -> str:
    first = next(one for one in lines if one["kind"] == "run")
    return (
        f"{first['score'].upper()} in per cent, {first['steps']} steps, {first['dev_items']} dev "
        f"items. {first['processor']}, {first['threads']} thread, {first['date']}; "
        f"`{first['command']}`, then the same with `--report`."
    )


def verdict(claim: Claim, arms: dict[str, Arm]) -> str:
    """Return what was found of a claim, as a line of a list.

    Args:
        claim: The claim.
        arms: What is known of the arms.
    """
    arm, other = arms[claim.arm], arms[claim.other]
    between = bootstrap_difference(arm.edits, other.edits, other.units)
    error = other.test.estimate
    upper = between.high / error if error else math.nan
    met = "met" if upper <= claim.most else "missed"
    return (
        f"- {claim.text} (`{claim.arm}`, `{claim.other}`): {100 * arm.test.estimate:.1f} and "
        f"{100 * error:.1f} %, difference {percent(between)} points, at most "
        f"{100 * upper:+.0f} % of it (bar {100 * claim.most:+.0f} %): {met}."
    )
