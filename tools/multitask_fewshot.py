"""Few recordings of a task that was left out: what each way makes of 10 and of 100 of them.

    python tools/multitask_fewshot.py            trains what is missing, one task left out at a time
    python tools/multitask_fewshot.py --report   writes docs/results/multitask_fewshot.md

Uses the suite and the finished runs of `tools/multitask.py`. For each task left out, the shared
adapter, the routed skills and the hyper-adapter are trained on the other tasks; what they learnt,
or the other tasks' adapters merged into one, is then where a short training on a few recordings of
that task begins. Which recordings these are hangs on the seed; scored on test, three seeds. Every
way has the learning rate that was best for it in the comparison and the same few steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from grid_plan import ROOT, Run
from multitask import RESULTS, Comparison
from multitask_plan import SEEDS, SINGLE, USUAL_SEEDS, noted, runs_of
from multitask_scores import TEST, Items, Stage, sets_of, test_items

from speechadapt.adapters import store
from speechadapt.adapters.attach import remove
from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment
from speechadapt.core.errors import ConfigError, SpeechadaptError
from speechadapt.core.files import append_line, atomic_write_text, read_lines
from speechadapt.metrics.macro import TaskEdits, averaged, macro_rate
from speechadapt.training.loop import train
from speechadapt.training.tasks.multitask import Config, MultitaskObjective

FILE = ROOT / "docs" / "results" / "multitask_fewshot.jsonl"
LEFT_OUT = ("es_words", "zh_words", "orders", "ar_digits_noisy")
SHOTS = (10, 100)
STEPS = 40
# Where a way begins (an arm trained on the other tasks), and the recipe and settings it goes on by.
WAYS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "single": ("", "single", {}),
    "shared": ("shared", "single", {}),
    "mera": ("mera", "single", {}),
    "mhr_z": ("mhr", "mhr", {"learns": "router"}),
    "mhr_mu": ("mhr", "mhr", {"routing": "mean"}),
    "hyper": ("hyper", "hyper", {}),
}


class FewShot:
    """Trainings on few recordings of tasks that were left out.

    Args:
        comparison: Whose suite, head and learning rates are used.
        results: The results file.
        seeds: Seeds of the short trainings.
    """

    def __init__(self, comparison: Comparison, results: Path, seeds: Sequence[int]) -> None:
        self.comparison = comparison
        self.results = results
        self.seeds = tuple(seeds)
        self.folder = comparison.folder / "fewshot"
        self.items: Items = test_items(comparison)

    def lines(self) -> list[dict[str, Any]]:
        """Return what is known under the comparison's protocol."""
        if not self.results.is_file():
            return []
        lines = [line for _, line in read_lines(self.results)]
        return [one for one in lines if one["protocol"] == self.comparison.protocol]

    def best(self, arm: str) -> Run:
        """Return an arm's chosen run of the first seed.

        Raises:
            ConfigError: It is not finished.
        """
        plan = self.comparison.plan
        run = plan.of_seed(arm, plan.seeds[0], runs_of(self.comparison.lines()))
        if run is None:
            raise ConfigError(
                f"few recordings were to be learnt from, but the arm '{arm}' is not finished. "
                "Run tools/multitask.py first."
            )
        return run

    def start(self, arm: str, task: str) -> Path:
        """Return the folder of what was made of all other tasks, made where it is missing.

        Args:
            arm: An arm that is trained on a mix, or `mera`.
            task: The task left out.
        """
        folder = self.folder / f"{arm}-without-{task}"
        if arm == "mera":
            self._merge(task, folder / "last")
        elif not (folder / "last" / store.CONFIG).is_file():
            config = self.comparison.config(self.best(arm))
            others = tuple(one for one in self.comparison.plan.tasks if one != task)
            self._train(dataclasses.replace(config, tasks=others), folder)
        return folder / "last"

    def _merge(self, task: str, target: Path) -> None:
        if (target / store.CONFIG).is_file():
            return
        stage = Stage(self.comparison, SINGLE, self.comparison.plan.seeds[0])
        others = [one for one in stage.tasks if one != task]
        (name,) = compose(stage.encoder, f"mera({', '.join(others)})", name="merged")
        store.save(attachment(stage.encoder, name), target)
        remove(stage.encoder, name)

    def _train(self, config: Config, folder: Path) -> MultitaskObjective:
        shutil.rmtree(folder, ignore_errors=True)
        objective = MultitaskObjective(config, self.comparison.ground)
        train(objective, config.trainer, folder)
        shutil.rmtree(folder / "checkpoints")
        return objective

    def config(self, way: str, task: str, shots: int, seed: int) -> Config:
        """Return the settings of one short training.

        Args:
            way: One of `WAYS`.
            task: The task left out.
            shots: Recordings of it.
            seed: Chooses them.
        """
        begins, recipe, settings = WAYS[way]
        run = self.best(f"{SINGLE}:{task}" if recipe == SINGLE else recipe)
        config = self.comparison.config(run)
        trainer = dataclasses.replace(
            config.trainer,
            steps=STEPS,
            warmup_steps=STEPS // 10,
            evaluate_every=STEPS,
            checkpoint_every=STEPS,
            log_every=STEPS,
            seed=seed,
        )
        return dataclasses.replace(
            config,
            tasks=(task,),
            shots=shots,
            trainer=trainer,
            adapter={**config.adapter, **settings},
            start=str(self.start(begins, task)) if begins else "",
        )

    def go(self, tasks: Sequence[str] = LEFT_OUT) -> None:
        """Do what is missing.

        Args:
            tasks: Tasks to leave out, one at a time.
        """
        known = {(o["way"], o["task"], o["shots"], o["seed"]) for o in self.lines()}
        for task in tasks:
            for way, (begins, _, _) in WAYS.items():
                if begins and (way, task, 0, 0) not in known:
                    config = self.config(way, task, SHOTS[0], self.seeds[0])
                    self._note(way, task, 0, 0, MultitaskObjective(config, self.comparison.ground))
                for shots in SHOTS:
                    for seed in self.seeds:
                        if (way, task, shots, seed) not in known:
                            config = self.config(way, task, shots, seed)
                            objective = self._train(config, self.folder / "run")
                            self._note(way, task, shots, seed, objective)

    @torch.no_grad()
    def _note(
        self, way: str, task: str, shots: int, seed: int, objective: MultitaskObjective
    ) -> None:
        objective.eval()
        sets = sets_of({task: self.items[task]})
        objective.task_scores(sets, TEST)
        items = sorted(sets.scored[task].items, key=lambda one: one.pair.id)
        line = {"kind": "shots", "way": way, "task": task, "shots": shots, "seed": seed}
        counts = {
            "trained": objective.trained_parameters()["adapter"],
            "edits": [one.characters.edits for one in items],
            "units": [one.characters.reference for one in items],
            "speakers": [one.pair.speaker for one in items],
            "protocol": self.comparison.protocol,
        }
        append_line(self.results, line | counts)
        rate = sets.scored[task].cer
        print(f"{way} {task} {shots} shots, seed {seed}: test CER {100 * rate:.1f} %", flush=True)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of few recordings.

    Args:
        lines: Of one protocol.
    """
    found = noted(lines, "shots")
    parts = ["# Few recordings of a task that was left out", __doc__.split("\n\n")[2]]
    for task in dict.fromkeys(one["task"] for one in found):
        counts = sorted({one["shots"] for one in found if one["task"] == task})
        head = ("way", "trained", *(f"{count} recordings" for count in counts))
        rows: list[Sequence[str]] = [head, ("---",) * len(head)]
        for way in WAYS:
            own = [one for one in found if (one["way"], one["task"]) == (way, task)]
            if own:
                cells = [_cell([one for one in own if one["shots"] == count]) for count in counts]
                rows.append((f"`{way}`", f"{own[-1]['trained']:,}", *cells))
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
        parts += [f"## {task} (CER on test)", text]
    return "\n\n".join(parts) + "\n"


def _cell(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return "-"
    edits = [
        TaskEdits(tuple(one["edits"]), tuple(one["units"]), tuple(one["speakers"])) for one in lines
    ]
    value = macro_rate(averaged([[one] for one in edits]))
    low, high = 100 * value.low, 100 * value.high
    return f"{100 * value.estimate:.1f} [{low:.1f}, {high:.1f}]"


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "multitask", metavar="FOLDER")
    parser.add_argument("--results", type=Path, default=FILE, metavar="FILE")
    parser.add_argument("--tasks", nargs="+", default=list(LEFT_OUT), metavar="TASK")
    parser.add_argument("--seeds", type=int, default=USUAL_SEEDS, metavar="N", help="1 to 5")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads")
    parser.add_argument("--report", action="store_true", help="write the page")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    arguments = parse(sys.argv[1:] if given is None else given)
    torch.set_num_threads(arguments.threads)
    try:
        suite, seeds = arguments.runs / "suite", SEEDS[: arguments.seeds]
        comparison = Comparison(arguments.runs, suite, RESULTS, SEEDS[:USUAL_SEEDS])
        few = FewShot(comparison, arguments.results, seeds)
        if not arguments.report:
            few.go(arguments.tasks)
        page = table(few.lines())
        atomic_write_text(arguments.results.with_suffix(".md"), page)
        print(page)
    except SpeechadaptError as error:
        print(f"multitask_fewshot: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
