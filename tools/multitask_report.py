"""What `tools/multitask.py --report` does: score what is finished, note it, write the page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import multitask_retrieval
from bench_facts import result
from multitask_claims import claimed, told
from multitask_costs import cost_of_run, cost_of_way
from multitask_plan import FREE, HEAD, MIXED, SINGLE, noted, runs_of
from multitask_scores import (
    TEST,
    Items,
    Stage,
    counted,
    gradient_cosine,
    items_line,
    restored,
    routing,
    score_run,
    sets_of,
    test_items,
)
from multitask_tables import tables

from speechadapt.core.files import append_line, atomic_write_json, atomic_write_text
from speechadapt.training.multitask.pictures import draw_matrix, draw_routing
from speechadapt.training.speech import data_root
from speechadapt.training.tasks.multitask import task_of

if TYPE_CHECKING:
    from multitask import Comparison

ROUTED = ("gated", "routed", "attention", "joint_routed")
ALIGNED = ("shared_lora", "mhr")  # of which is told how well the tasks' gradients agree


def report(comparison: Comparison, facts: Mapping[str, Any]) -> None:
    """Score what is finished and not yet scored, and write the page and its pictures.

    Args:
        comparison: The comparison.
        facts: What it was measured with.
    """
    items = test_items(comparison)
    if not any(one["kind"] == "setup" for one in comparison.lines()):
        _note(comparison, {"kind": "setup", **facts})
    _score_trained(comparison, items)
    for kind in dict.fromkeys(kind for _, kind in FREE.values()):
        for seed in comparison.plan.seeds:
            _score_free(comparison, items, kind, seed)
    _note_costs(comparison, items)
    _note_routing(comparison, items)
    _note_cosines(comparison)
    lines = comparison.lines()
    page = comparison.results.with_suffix(".md")
    pictures = _draw(comparison, lines)
    figures = claimed(comparison.plan, lines)
    command, environment = str(facts["command"]), {k: v for k, v in facts.items() if k != "command"}
    about = told(comparison.plan, lines)
    found = result(f"{command} --report", environment, figures, about)
    atomic_write_json(comparison.results.with_suffix(".json"), found)
    atomic_write_text(page, tables(comparison.plan, lines, pictures, _minutes(comparison)))
    print(page.read_text(encoding="utf-8"))


def _note(comparison: Comparison, line: Mapping[str, Any]) -> None:
    append_line(comparison.results, {**line, "protocol": comparison.protocol})


def _score_trained(comparison: Comparison, items: Items) -> None:
    plan, runs = comparison.plan, runs_of(comparison.lines())
    for arm in (HEAD, *MIXED):
        for seed in plan.seeds[:1] if arm == HEAD else plan.seeds:
            known = {(one["arm"], one["seed"]) for one in noted(comparison.lines(), "test")}
            run = plan.of_seed(arm, seed, runs)
            if run is None or (arm, seed) in known:
                continue
            _note(comparison, score_run(comparison, run, items))
            print(f"{run.name}: scored", flush=True)


def _score_free(comparison: Comparison, items: Items, kind: str, seed: int) -> None:
    plan, runs = comparison.plan, runs_of(comparison.lines())
    known = {(one["arm"], one["seed"]) for one in noted(comparison.lines(), "free")}
    ways = [way for way, (_, own) in FREE.items() if own == kind and (way, seed) not in known]
    needed = (HEAD, *plan.singles(kind))
    if not ways or any(plan.of_seed(arm, seed, runs) is None for arm in needed):
        return
    stage = Stage(comparison, kind, seed)
    dev, test = sets_of(comparison.ground.dev), sets_of(items)
    for way in ways:
        found = stage.score(way, dev, "")
        line: dict[str, Any] = {"kind": "free", "arm": way, "seed": seed}
        for name, rate in (("dev", "cer"), ("dev_wer", "wer")):
            values = [getattr(found[task], rate) for task in plan.tasks]
            line[name] = round(statistics.fmean(values), 5)
        scored = stage.score(way, test, TEST)
        if not noted(comparison.lines(), "items"):
            _note(comparison, items_line(scored, plan.tasks))
        _note(comparison, line | counted(scored, plan.tasks))
        print(f"{way}-s{seed}: scored", flush=True)
    if kind == SINGLE and seed == plan.seeds[0]:
        _note(comparison, {"kind": "matrix", "rates": stage.matrix(test, TEST)})
        root = data_root(comparison.recipe(HEAD).data)
        _note(comparison, multitask_retrieval.check(stage, items, root))


def _note_costs(comparison: Comparison, items: Items) -> None:
    plan, runs, first = comparison.plan, runs_of(comparison.lines()), comparison.plan.seeds[0]
    known = {one["arm"] for one in noted(comparison.lines(), "cost")}

    def note(arm: str, found: Mapping[str, Any] | None) -> None:
        if found is not None:
            _note(comparison, {"kind": "cost", "arm": arm, **found})

    for arm in MIXED:
        run = plan.of_seed(arm, first, runs)
        if run is not None and arm not in known:
            note(arm, cost_of_run(restored(comparison, run), items))
    for kind in dict.fromkeys(kind for _, kind in FREE.values()):
        ways = [way for way, (_, own) in FREE.items() if own == kind and way not in known]
        needed = (HEAD, *plan.singles(kind))
        if ways and all(plan.of_seed(arm, first, runs) is not None for arm in needed):
            stage = Stage(comparison, kind, first)
            for way in ways:
                note(way, cost_of_way(stage, way, items))


def _note_routing(comparison: Comparison, items: Items) -> None:
    plan, lines = comparison.plan, comparison.lines()
    known = {one["arm"] for one in noted(lines, "routing")}
    for arm in ROUTED:
        run = plan.of_seed(arm, plan.seeds[0], runs_of(lines))
        if run is not None and arm not in known:
            weights = routing(restored(comparison, run), items)
            _note(comparison, {"kind": "routing", "arm": arm, "weights": weights})


def _note_cosines(comparison: Comparison) -> None:
    plan, lines = comparison.plan, comparison.lines()
    known = {one["arm"] for one in noted(lines, "cosine")}
    for arm in ALIGNED:
        run = plan.of_seed(arm, plan.seeds[0], runs_of(lines)) if arm in MIXED else None
        if run is not None and arm not in known:
            found = round(gradient_cosine(comparison, run), 4)
            _note(comparison, {"kind": "cosine", "arm": arm, "cosine": found})


def _draw(comparison: Comparison, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    folder, made = comparison.results.parent, []
    for line in noted(lines, "matrix")[-1:]:
        made.append("multitask-matrix.png")
        draw_matrix(line["rates"], "cer", folder / made[-1])
    for line in noted(lines, "routing"):
        made.append(f"multitask-{line['arm']}.png")
        draw_routing(line["weights"], comparison.plan.tasks, folder / made[-1])
    return made


def _minutes(comparison: Comparison) -> dict[str, float]:
    """Return the minutes of training audio by task."""
    found = dict.fromkeys(comparison.plan.tasks, 0.0)
    for row in comparison.ground.speech.utterances:
        found[task_of(row)] += (row.duration or 0.0) / 60
    return found
