"""The tables of a comparison of ways to serve many tasks, and what they say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import multitask_retrieval
from grid_plan import Run, Runs
from multitask_plan import (
    FREE,
    FULL,
    HEAD,
    MIXED,
    ORACLE,
    TOLD,
    Plan,
    noted,
    oracle_of,
    runs_of,
)

from speechadapt.metrics.macro import (
    MacroInterval,
    TaskEdits,
    averaged,
    macro_rate,
    macro_relative,
)
from speechadapt.training.multitask.matrix import matrix_rows

NEAR, NEAR_HIGH, BELOW, SHARE = 0.03, 0.10, -0.08, 0.17
NOTE = (
    "Written by `tools/multitask.py --report` from the lines of the results file beside this page. "
    "Thirteen tasks (`tools/multitask_suite.py`), one frozen mini-usm, one frozen head over the "
    "letters of all. Every arm was tried at the same learning rates with one seed, full "
    "fine-tuning at a lower one too, single low-rank adapters at a higher one; the rate was chosen "
    "on dev, and its seeds were scored on test once. Figures are means over the tasks, each task "
    "counting alike, in per cent; intervals are 95 % paired bootstrap intervals, speakers drawn "
    "where a task has several, items of all seeds together. `trained` are the numbers that the "
    "arm's own run trains, `held` those that stand beside the encoder in use, in per cent of the "
    "encoder; `min` is what the training of one seed "
    "took, that of the adapters it starts from included; `time` is that of the encoder in use over "
    "the bare one's, in turns on the same batches of three recordings (median, least and most)."
)


@dataclass(frozen=True)
class Arm:
    """What is known of one arm.

    Args:
        name: The arm.
        seeds: How many of its seeds were scored on test.
        rate: Learning rate; None where nothing is trained.
        trained: Numbers its run trains.
        held: Numbers beside the encoder in use.
        encoder: Numbers of the encoder.
        minutes: Training of one seed, that of what it starts from included.
        cost: The encoder's time with it over the bare one's, median, least and most of the rounds;
            None where nothing stands beside the encoder.
        dev: Mean character error rate on dev, over tasks and seeds.
        test: Edits of every item, the mean over its seeds, by `cer` and `wer`.
    """

    name: str
    seeds: int
    rate: float | None
    trained: int
    held: int
    encoder: int
    minutes: float
    cost: tuple[float, float, float] | None
    dev: float
    test: Mapping[str, Sequence[TaskEdits]]

    @property
    def told(self) -> bool:
        """Whether it is told the task."""
        return self.name in TOLD


def arms_of(plan: Plan, lines: Sequence[Mapping[str, Any]]) -> list[Arm]:
    """Return the arms that were scored on test.

    Args:
        plan: Tasks, rates, seeds.
        lines: The lines of one protocol.
    """
    runs, items = runs_of(lines), noted(lines, "items")
    if not items:
        return []
    costs = {one["arm"]: (one["time"], one["low"], one["high"]) for one in noted(lines, "cost")}
    found = []
    for arm in (HEAD, *MIXED):
        scored = [one for one in noted(lines, "test") if one["arm"] == arm]
        own = [plan.of_seed(arm, one["seed"], runs) for one in scored]
        chosen = [runs[run] for run in own if run is not None]
        if chosen:
            first = chosen[0]
            dev = statistics.fmean(one["dev"] for one in chosen)
            sizes = first["trained"], first["held"], first["encoder"]
            edits = _edits(plan, scored, items[0])
            spent = _minutes(plan, runs, (arm, *_all_needs(plan, arm)))
            found.append(
                Arm(arm, len(scored), first["rate"], *sizes, spent, costs.get(arm), dev, edits)
            )
    for way, (_, kind) in FREE.items():
        scored = [one for one in noted(lines, "free") if one["arm"] == way]
        singles = [plan.of_seed(arm, plan.seeds[0], runs) for arm in plan.singles(kind)]
        parts = [runs[run] for run in singles if run is not None]
        if scored and parts:
            together = sum(one["held"] for one in parts)
            merged = way.startswith(("mera", "svd", "ties", "dare"))
            held = parts[0]["held"] if merged else together
            dev = statistics.fmean(one["dev"] for one in scored)
            edits = _edits(plan, scored, items[0])
            sizes = 0, held, parts[0]["encoder"]
            spent = _minutes(plan, runs, (HEAD, *plan.singles(kind)))
            cost = costs.get(way)
            found.append(Arm(way, len(scored), None, *sizes, spent, cost, dev, edits))
    return found


def _all_needs(plan: Plan, arm: str) -> tuple[str, ...]:
    found = plan.needs(arm)
    return tuple(dict.fromkeys([*found, *(one for name in found for one in plan.needs(name))]))


def _minutes(plan: Plan, runs: Runs, arms: Sequence[str]) -> float:
    chosen = [plan.of_seed(arm, plan.seeds[0], runs) for arm in arms]
    return sum(runs[run]["run_s"] for run in chosen if run is not None) / 60


def _edits(
    plan: Plan, scored: Sequence[Mapping[str, Any]], items: Mapping[str, Any]
) -> dict[str, list[TaskEdits]]:
    return {
        rate: averaged(
            [
                [
                    TaskEdits(
                        tuple(line["edits"][rate][task]),
                        tuple(items["units"][rate][task]),
                        tuple(items["speakers"][task]),
                    )
                    for task in plan.tasks
                ]
                for line in scored
            ]
        )
        for rate in ("cer", "wer")
    }


def tables(
    plan: Plan,
    lines: Sequence[Mapping[str, Any]],
    pictures: Sequence[str],
    minutes: Mapping[str, float],
) -> str:
    """Return the page.

    Args:
        plan: Tasks, rates, seeds.
        lines: The lines of one protocol.
        pictures: Their file names.
        minutes: Of training audio, by task.
    """
    arms = sorted(arms_of(plan, lines), key=lambda one: macro_rate(one.test["cer"]).estimate)
    parts = ["# Many tasks without a task ID", NOTE, *_facts(lines)]
    if arms:
        parts += ["## Every arm", _arm_table(arms), *_verdict(arms), "## By task (CER)"]
        parts += [_task_table(plan, arms), *_each_or_shared(plan, arms, minutes)]
    parts += _matrix(lines)
    cosines = [f"`{one['arm']}` {one['cosine']:.2f}" for one in noted(lines, "cosine")]
    if cosines:
        parts.append(
            f"Mean cosine between the gradients of two tasks at the end: {', '.join(cosines)}."
        )
    for line in noted(lines, "retrieval")[-1:]:
        parts += multitask_retrieval.section(line)
    parts += [f"![{name.removesuffix('.png')}]({name})" for name in pictures]
    parts += ["## Error on dev by learning rate, first seed", _search_table(plan, lines)]
    return "\n\n".join(parts) + "\n"


def _facts(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    setup, runs = noted(lines, "setup"), noted(lines, "run")
    if not setup or not runs:
        return []
    first, minutes = setup[0], sum(one["run_s"] for one in runs) / 60
    dates = sorted({one["date"] for one in runs})
    return [
        f"{first['processor']}, {first['threads']} thread, torch {first['torch']}, "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {len(runs)} runs in "
        f"{minutes:.0f} min; `{first['command']}`, then the same with `--report`."
    ]


def _arm_table(arms: Sequence[Arm]) -> str:
    by_name = {one.name: one for one in arms}
    head = (
        "arm",
        "told the task",
        "seeds",
        "rate",
        "trained",
        "held",
        "min",
        "time",
        "dev CER",
        "test CER",
        "test WER",
        "CER to the oracle",
        "CER to full fine-tuning",
        "CER to the head alone",
    )
    rows = [head, ("---",) * len(head)]
    for one in arms:
        others = [by_name.get(name) for name in (ORACLE, FULL, HEAD)]
        rows.append(
            (
                f"`{one.name}`",
                "yes" if one.told else "no",
                str(one.seeds),
                "-" if one.rate is None else f"{one.rate:g}",
                f"{100 * one.trained / one.encoder:.1f}",
                f"{100 * one.held / one.encoder:.1f}",
                f"{one.minutes:.1f}",
                "-" if one.cost is None else "{:.2f} [{:.2f}, {:.2f}]".format(*one.cost),
                f"{100 * one.dev:.1f}",
                _shown(macro_rate(one.test["cer"])),
                _shown(macro_rate(one.test["wer"])),
                *("-" if other in (None, one) else _relative(one, other) for other in others),
            )
        )
    return _table(rows)


def _relative(one: Arm, other: Arm | None) -> str:
    assert other is not None
    return _shown(macro_relative(one.test["cer"], other.test["cer"]), sign=True)


def _shown(value: MacroInterval, sign: bool = False) -> str:
    form = "+.1f" if sign else ".1f"
    low, high = (format(100 * end, form) for end in (value.low, value.high))
    return f"{format(100 * value.estimate, form)} [{low}, {high}]"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def best_untold(arms: Sequence[Arm]) -> Arm | None:
    """Return the way that is best on dev of those that are not told the task; None of none.

    Args:
        arms: From `arms_of`.
    """
    free = untold(arms)
    return min(free, key=lambda one: one.dev) if free else None


def untold(arms: Sequence[Arm]) -> list[Arm]:
    """Return the ways that serve many tasks and are not told which."""
    return [one for one in arms if not one.told and one.name not in (HEAD, FULL)]


def _verdict(arms: Sequence[Arm]) -> list[str]:
    by_name = {one.name: one for one in arms}
    best = best_untold(arms)
    if best is None or not {FULL, oracle := oracle_of(best.name)} <= by_name.keys():
        return []
    to_oracle = macro_relative(best.test["cer"], by_name[oracle].test["cer"])
    to_full = macro_relative(best.test["cer"], by_name[FULL].test["cer"])
    near = to_oracle.estimate <= NEAR and to_oracle.high <= NEAR_HIGH
    share = best.held / best.encoder
    return [
        f"Best on dev of the {len(untold(arms))} ways that are not told the task: `{best.name}`. "
        f"On test its CER is {_shown(to_oracle, sign=True)} % relative to `{oracle}` (bar: at most "
        f"+{100 * NEAR:.0f} %, upper end at most +{100 * NEAR_HIGH:.0f} %: {_met(near)}) and "
        f"{_shown(to_full, sign=True)} % relative to full fine-tuning on the mix (bar: "
        f"{100 * BELOW:.0f} % or lower: {_met(to_full.estimate <= BELOW)}). It holds "
        f"{100 * share:.1f} % of the encoder's parameters (bar: at most {100 * SHARE:.0f} %: "
        f"{_met(share <= SHARE)})."
    ]


def _met(true: bool) -> str:
    return "met" if true else "missed"


def _task_table(plan: Plan, arms: Sequence[Arm]) -> str:
    head = ("arm", *plan.tasks)
    rows: list[Sequence[str]] = [head, ("---",) * len(head)]
    for one in arms:
        cells = [f"{100 * sum(task.edits) / sum(task.units):.1f}" for task in one.test["cer"]]
        rows.append((f"`{one.name}`", *cells))
    return _table(rows)


def _each_or_shared(plan: Plan, arms: Sequence[Arm], minutes: Mapping[str, float]) -> list[str]:
    """Compare one adapter for each task with one for all, task by task."""
    by_name = {one.name: one for one in arms}
    wide = [name for name in ("shared", "shared_wide") if name in by_name]
    if ORACLE not in by_name or not wide:
        return []
    head = ("task", "minutes of training", "an adapter of its own", *(f"`{one}`" for one in wide))
    rows: list[Sequence[str]] = [head, ("---",) * len(head)]
    for number, task in enumerate(plan.tasks):
        cells = [
            _shown(macro_rate([by_name[name].test["cer"][number]])) for name in (ORACLE, *wide)
        ]
        rows.append((task, f"{minutes[task]:.1f}", *cells))
    return ["## An adapter for each task, or one for all (CER on test)", _table(rows)]


def _matrix(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    found = noted(lines, "matrix")[-1:]
    if not found:
        return []
    head, *rows = matrix_rows(found[0]["rates"], "cer")
    return [
        "## Adapters by tasks (CER on test, first seed)",
        _table([head, ["---"] * len(head), *rows]),
    ]


def _search_table(plan: Plan, lines: Sequence[Mapping[str, Any]]) -> str:
    runs = runs_of(lines)
    rates = sorted({rate for arm in plan.arms for rate in plan.rates_of(arm)})
    head = ("arm", *(f"{rate:g}" for rate in rates))
    rows: list[Sequence[str]] = [head, ("---",) * len(head)]
    for arm in plan.arms:
        found = [runs.get(Run(arm, rate, plan.seeds[0])) for rate in rates]
        if any(found):
            cells = ["-" if one is None else f"{100 * one['dev']:.1f}" for one in found]
            rows.append((f"`{arm}`", *cells))
    return _table(rows)
