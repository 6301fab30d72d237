"""Test scores of a grid's chosen runs, what each arm costs, and the tables.

A chosen run is scored through what a user would load: its folder, read by `speechadapt.load`.
"""

from __future__ import annotations

import math
import multiprocessing
import operator
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from grid_plan import (
    RATES,
    WHOLE,
    Run,
    best_adapter,
    chosen_runs,
    finished_arms,
    first_runs,
    of_kind,
)

from speechadapt.core.errors import ConfigError
from speechadapt.core.files import append_line, atomic_write_text, read_lines
from speechadapt.data.corpora import pack
from speechadapt.metrics.bootstrap import Interval, bootstrap_difference, bootstrap_ratio
from speechadapt.metrics.report import percent
from speechadapt.metrics.wer import Pair, score_pairs
from speechadapt.models.build import load
from speechadapt.training.adapt_text import Speller
from speechadapt.training.loop import train
from speechadapt.training.speech import data_root

if TYPE_CHECKING:
    from grid import Grid

    from speechadapt.models.recogniser import Recogniser

BATCH = 32
COST_STEPS = 8
MB = 1 << 20
MOST = 0.5
BAR = 0.1
HEADER = (
    "| arm | trained, of the encoder | rate | dev | test, 3 seeds | each seed | step | memory | "
    "file | merges |",
    "|---|---|---|---|---|---|---|---|---|---|",
)

_NOTE = (
    "Written by `tools/grid.py --report` from the lines of the results file beside this page. "
    "Every arm had the same steps, batches and four learning rates; the rate was chosen on dev "
    "with one seed, and three seeds at that rate were scored on test once. Sorted by the error on "
    "test. `trained` leaves the head out, `file` holds it too; `step` (processor "
    "time) and `memory` (resident, above the start of training) are of a fresh process with its "
    "batches ready."
)


def report(grid: Grid) -> None:
    """Score the finished arms that are not yet scored, and write the tables.

    Args:
        grid: A language.

    Raises:
        ConfigError: Runs of full fine-tuning are missing, which all others are compared with.
    """
    runs = of_kind(grid.lines(), "run")
    done = finished_arms(grid.arms, runs)
    if "full" not in done:
        raise ConfigError(
            f"--report compares with full fine-tuning, of which "
            f"{grid.missing(['full'])[0].name} is missing. Run the command without --report first."
        )
    scored = of_kind(grid.lines(), "test")
    for run in chosen_runs(done, runs):
        if run in scored:
            continue
        if not (grid.folder / run.name / "last").is_dir():
            grid.train(run)
        line = score_test(grid, run)
        append_line(grid.results, line)
        print(f"{run.name}: test {100 * sum(line['edits']) / sum(line['units']):.1f} %", flush=True)
    known = {one["arm"] for one in grid.lines() if one["kind"] == "cost"}
    for name in done:
        if name not in known:
            append_line(grid.results, measure_cost(grid, name))
    page = grid.results.with_suffix(".md")
    atomic_write_text(page, tables(grid.results))
    print(page.read_text(encoding="utf-8"))


def _head(grid: Grid, kind: str, run: Run) -> dict[str, Any]:
    where = {"language": grid.language, "arm": run.arm, "rate": run.rate, "seed": run.seed}
    return {"kind": kind, **where, "protocol": grid.protocol}


def score_test(grid: Grid, run: Run) -> dict[str, Any]:
    """Return the line of a run's test score: edits and units of every item, in order of the ids.

    Args:
        grid: The language.
        run: One of its runs, whose folder is there.
    """
    config = grid.config(run)
    folder = grid.folder / run.name / "last"
    if run.arm == "full":
        recogniser = load(folder, word_timestamps=False)
    else:
        recogniser = load(config.base or None, adapter=folder, word_timestamps=False)
    root = data_root(config.data)
    spell = Speller(config.normaliser, config.language)
    items = [
        replace(one, text=spell(one))
        for one in pack.load_splits(root, config.data.dev, "test")
        if one.text
    ]
    items.sort(key=lambda one: one.id)
    texts: list[str] = []
    for start in range(0, len(items), BATCH):
        signals = [_samples(recogniser, root, one) for one in items[start : start + BATCH]]
        texts += [found.text for found in recogniser.decode_batch(signals)]
    pairs = [
        Pair(one.id, one.text, text, one.speaker, one.lang)
        for one, text in zip(items, texts, strict=True)
    ]
    score = score_pairs(pairs, config.normaliser, config.language or None)
    name = of_kind(grid.lines(), "run")[run]["score"]
    counts = [one.characters if name == "cer" else one.words for one in score.items]
    return _head(grid, "test", run) | {
        "score": name,
        "wer": score.wer,
        "cer": score.cer,
        "edits": [one.edits for one in counts],
        "units": [one.reference for one in counts],
        "speakers": [one.pair.speaker for one in score.items],
        "hypotheses": [one.hypothesis for one in score.items],
        **grid.facts,
    }


def _samples(recogniser: Recogniser, root: Path, item: Any) -> Any:
    import numpy as np
    import soxr

    samples, rate = pack.read_audio(root, item)
    if rate != recogniser.sample_rate:
        samples = soxr.resample(samples, rate, recogniser.sample_rate)
    return np.ascontiguousarray(samples, dtype=np.float32)


def measure_cost(grid: Grid, name: str) -> dict[str, Any]:
    """Return the line of an arm's cost, measured in a fresh process, alone.

    Args:
        grid: The language.
        name: The arm.
    """
    run = chosen_runs([name], of_kind(grid.lines(), "run"))[0]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(cost, grid.config(run), torch.get_num_threads()).result()
    return _head(grid, "cost", run) | found | grid.facts


def cost(config: Any, threads: int) -> dict[str, Any]:
    """Train a few steps in this process; return their median time and the memory they took.

    Args:
        config: Settings of a run.
        threads: CPU threads.
    """
    import tempfile

    from speechadapt.training.tasks import adapt

    torch.set_num_threads(threads)
    objective = adapt.build(config)
    batches = [objective.batch(step, 0) for step in range(COST_STEPS)]
    objective.inputs.batch = lambda step, rank, kept: dict(batches[step])  # type: ignore[method-assign]
    trainer = replace(config.trainer, steps=COST_STEPS, evaluate_every=COST_STEPS)
    facts: dict[str, Any] = {}
    # processor time, because other work on the machine does not lengthen it
    clock = time.monotonic if torch.cuda.is_available() else time.process_time
    ends: list[float] = []

    def note(step: int, seconds: float) -> None:
        ends.append(clock())
        facts.update(meter.facts())  # before the evaluation, which takes memory of its own

    meter, objective.after_step = objective.meter, note  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(objective, trainer, Path(folder))
    return {
        "step_s": round(statistics.median(map(operator.sub, ends[2:], ends[1:])), 4),
        "memory": facts["peak_memory"],
        "memory_of": facts["peak_memory_of"],
    }


def tables(path: Path) -> str:
    """Return the Markdown page of a results file: tables for each language of its last protocol.

    Args:
        path: The results file.
    """
    lines = [line for _, line in read_lines(path)]
    parts = ["# New languages: every arm", _NOTE]
    last = {one["language"]: one["protocol"] for one in lines}
    for language, version in sorted(last.items()):
        own = [one for one in lines if (one["language"], one["protocol"]) == (language, version)]
        parts += section(language, own)
    return "\n\n".join(parts) + "\n"


def section(language: str, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs about one language.

    Args:
        language: Its name.
        lines: The lines of one protocol.
    """
    runs, tests = of_kind(lines, "run"), of_kind(lines, "test")
    names = list(dict.fromkeys(run.arm for run in runs))
    done = [
        name for name in finished_arms(names, runs) if tests.keys() >= {*chosen_runs([name], runs)}
    ]
    parts = [f"## {language}", _facts(lines), *_test_table(done, runs, tests, lines)]
    head = ("arm", *(f"{rate:g}" for rate in RATES))
    rows = [head, ("---",) * len(head), *(_search_row(name, runs) for name in names)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return [*parts, "Error on dev by learning rate, first seed:", table]


def _facts(lines: Sequence[Mapping[str, Any]]) -> str:
    first = next(one for one in lines if one["kind"] == "run")
    return (
        f"{first['score'].upper()} in per cent, {first['steps']} steps, {first['dev_items']} dev "
        f"items. {first['processor']}, {first['threads']} thread, {first['date']}; "
        f"`{first['command']}`, then the same with `--report`."
    )


def _search_row(name: str, runs: Mapping[Run, Mapping[str, Any]]) -> tuple[str, ...]:
    found = [runs.get(run) for run in first_runs([name])]
    return (f"`{name}`", *("-" if one is None else f"{100 * one['dev']:.1f}" for one in found))


def _test_table(
    names: Sequence[str],
    runs: Mapping[Run, Mapping[str, Any]],
    tests: Mapping[Run, Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
) -> list[str]:
    if "full" not in names:
        return ["Not scored on test yet."]
    costs = {one["arm"]: one for one in lines if one["kind"] == "cost"}
    results = [
        Arm.of(name, chosen_runs([name], runs), runs, tests, costs.get(name)) for name in names
    ]
    results.sort(key=lambda one: one.test.estimate)
    rows = "\n".join((*HEADER, *(one.row() for one in results)))
    best = best_adapter(names, runs)
    said = f"{len(results[0].speakers)} test items; {results[0].test.description}."
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
    run: Mapping[str, Any]
    dev: float
    test: Interval
    each: tuple[float, ...]
    edits: tuple[int, ...]
    units: tuple[int, ...]
    speakers: tuple[str | None, ...]
    cost: Mapping[str, Any] | None

    @classmethod
    def of(
        cls,
        name: str,
        chosen: Iterable[Run],
        runs: Mapping[Run, Mapping[str, Any]],
        tests: Mapping[Run, Mapping[str, Any]],
        cost: Mapping[str, Any] | None,
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


def _verdict(results: Sequence[Arm], best: str) -> str:
    by_name = {one.name: one for one in results}
    full, winner = by_name["full"], by_name[best]
    counts = full.test.estimate <= MOST
    rule = f"Full fine-tuning's error is {100 * full.test.estimate:.1f} %, " + (
        "so the language counts." if counts else f"above {MOST:.0%}: the language does not count."
    )
    between = bootstrap_difference(winner.edits, full.edits, full.units, full.speakers)
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
