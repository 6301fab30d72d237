"""Compare ways to serve many tasks with one frozen encoder, no task being named.

    python tools/multitask.py [--arms NAME ...] [--sitting MINUTES]   train what is missing
    python tools/multitask.py --report     score on test what is done, write the page and pictures

The suite is made by `tools/multitask_suite.py` where it is missing. Every arm is a recipe of
`recipes/multitask` and gets the same learning rates with the first seed; at the rate that is best
on dev (mean character error rate over the tasks) it is run with the other seeds, and those runs
alone are scored on test, once. Each finished run is one line of the results file, so a later
sitting does what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from bench_facts import describe_command, environment
from grid_plan import ROOT, Run
from multitask_plan import (
    FUSED,
    HEAD,
    RATES,
    SEEDS,
    STARTS,
    USUAL_SEEDS,
    Plan,
    protocol,
    read_results,
    recipe_of,
    runs_of,
    task_of,
)
from multitask_suite import FACTS, MANIFEST, make
from sittings import sit

from speechadapt.config.resolve import resolve
from speechadapt.core.errors import CheckpointError, SpeechadaptError
from speechadapt.core.files import append_line, hash_file, read_json
from speechadapt.models.build import find_model
from speechadapt.training.adapt.transcribed import Ground, read_ground
from speechadapt.training.loop import train
from speechadapt.training.speech import DataConfig, data_root
from speechadapt.training.tasks.multitask import Config, MultitaskObjective

RESULTS = ROOT / "docs" / "results" / "multitask.jsonl"
STATE = "state.safetensors"
DIVERGED = 99.0  # the error on dev of a run whose loss was lost


class Comparison:
    """The runs of one suite.

    Args:
        folder: Where runs leave what they trained, each protocol in a folder of its own.
        suite: The suite's folder.
        results: The results file.
        seeds: Seeds.
        words: Settings beside the recipes', `key=value`, that are no part of the protocol.
        rates: Learning rates.
    """

    def __init__(
        self,
        folder: Path,
        suite: Path,
        results: Path,
        seeds: Sequence[int],
        words: Sequence[str] = (),
        rates: Sequence[float] = RATES,
    ) -> None:
        self.results = results
        self.suite = suite
        self.words = tuple(words)
        facts = read_json(suite / FACTS)
        self.texts: dict[str, str] = facts["tasks"]
        self.plan = Plan(tuple(self.texts), tuple(rates), tuple(seeds))
        self._recipes: dict[str, Config] = {}
        self.base = find_model(self.recipe(HEAD).base or None)
        weights = hash_file(self.base / "model.safetensors")
        self.protocol = protocol(facts["manifest_sha256"], weights, rates)
        self.folder = folder / self.protocol

    @cached_property
    def ground(self) -> Ground:
        """Recordings, and states of the frozen layers, that all runs share."""
        return read_ground(self.recipe(HEAD), 16000)

    def recipe(self, arm: str) -> Config:
        """Return the settings of an arm's recipe on the suite."""
        name = recipe_of(arm)
        if name not in self._recipes:
            words = [f"recipe={name}", f"data.manifest={self.suite / MANIFEST}"]
            found: Config = resolve([*words, *self.words]).config
            self._recipes[name] = found
        return self._recipes[name]

    def lines(self) -> list[dict[str, Any]]:
        """Return what is known under this protocol."""
        return read_results(self.results, self.protocol)

    def target(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / run.name.replace(":", "-")

    def saved(self, arm: str, seed: int, runs: Mapping[Run, Mapping[str, Any]]) -> str:
        """Return the folder of what an arm's chosen run of one seed saved."""
        run = self.plan.of_seed(arm, seed, runs)
        assert run is not None  # the plan asks for no run before those that it starts from
        return str(self.target(run) / "last")

    def config(self, run: Run) -> Config:
        """Return the settings of a run."""
        recipe, runs = self.recipe(run.arm), runs_of(self.lines())
        steps = recipe.trainer.steps
        trainer = dataclasses.replace(
            recipe.trainer,
            learning_rate=run.rate,
            seed=run.seed,
            evaluate_every=steps,
            checkpoint_every=steps,
            log_every=max(1, steps // 5),
        )
        changes: dict[str, Any] = {"trainer": trainer, "compare": False}
        if task_of(run.arm):
            changes["tasks"] = (task_of(run.arm),)
        if run.arm != HEAD:
            changes["head"] = self.saved(HEAD, run.seed, runs)
        if recipe.adapter.get("tasks"):
            changes["adapter"] = {**recipe.adapter, "tasks": list(self.plan.tasks)}
        if recipe.parts:
            folders = run.arm in FUSED
            changes["parts"] = {
                arm.partition(":")[2]: self.saved(arm, run.seed, runs) if folders else ""
                for arm in self.plan.singles()
            }
        if run.arm in STARTS:
            changes["start"] = self.saved(STARTS[run.arm], run.seed, runs)
        return dataclasses.replace(recipe, **changes)

    def build(self, run: Run) -> MultitaskObjective:
        """Return the task of a run, on the recordings that all share."""
        return MultitaskObjective(self.config(run), self.ground)

    def train(self, run: Run) -> bool:
        """Do one run and note it; return whether it came to its end."""
        target = self.target(run)
        shutil.rmtree(target, ignore_errors=True)
        started = time.monotonic()
        objective = self.build(run)
        config = objective.config
        try:
            result = train(objective, config.trainer, target)
        except CheckpointError as error:
            if "start anew with a smaller" not in str(error).lower():
                raise
            print(f"{run.name} diverged: {error}", flush=True)
            self._note(run, {"dev": DIVERGED, "run_s": round(time.monotonic() - started, 1)})
            return True
        if not result.finished:
            shutil.rmtree(target, ignore_errors=True)
            return False
        kept = target / "checkpoints" / f"step-{config.trainer.steps:08d}" / "model.safetensors"
        os.replace(kept, target / STATE)
        shutil.rmtree(target / "checkpoints")
        shutil.rmtree(target / "best", ignore_errors=True)
        self._note(run, self._facts(run, objective, time.monotonic() - started))
        return True

    def _note(self, run: Run, facts: Mapping[str, Any]) -> None:
        named = {"kind": "run", "arm": run.arm, "rate": run.rate, "seed": run.seed}
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        append_line(self.results, {**named, **facts, "date": date, "protocol": self.protocol})

    def _facts(self, run: Run, objective: MultitaskObjective, seconds: float) -> dict[str, Any]:
        report = read_json(self.target(run) / "report.json")
        scores = report["scores"]["last"]
        counts = report["parameters"]
        mean = {
            rate: statistics.fmean(one[rate] for one in scores.values()) for rate in ("wer", "cer")
        }
        return {
            "dev": round(mean["cer"], 5),
            "dev_wer": round(mean["wer"], 5),
            "steps": objective.config.trainer.steps,
            "trained": counts["trained"],
            "held": held_parameters(objective),
            "encoder": counts["encoder"],
            "step_s": round(report["seconds_per_step"], 4),
            "run_s": round(seconds, 1),
        }

    def go(self, minutes: float | None, names: Sequence[str] = ()) -> None:
        """Do what is missing until nothing is, or until the sitting is over.

        Args:
            minutes: Length of the sitting; None sets no end.
            names: Arms to train; all where empty.

        Raises:
            ConfigError: There is no such arm.
        """
        arms = self.plan.chosen(names)

        def told(run: Run) -> str:
            line = self.lines()[-1]
            return f"{run.name}: dev CER {100 * line['dev']:.1f} %, {line['run_s']:.0f} s"

        if not sit(
            minutes,
            lambda: self.plan.missing(arms, runs_of(self.lines())),
            self.train,
            told,
        ):
            return
        waiting = [arm for arm in arms if not self.plan.finished(arm, runs_of(self.lines()))]
        if waiting:
            print(f"not run, because what they start from is missing: {', '.join(waiting)}")


def held_parameters(objective: MultitaskObjective) -> int:
    """Return how many numbers stand beside the encoder when a run's result is used, head apart."""
    if objective.config.arm == "full":
        return 0
    modules = objective.encoder.followers
    found = {
        id(tensor): tensor.numel()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(found.values())


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "multitask", metavar="FOLDER")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--sitting", type=float, metavar="MINUTES", help="start no run after this")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads")
    parser.add_argument("--seeds", type=int, default=USUAL_SEEDS, metavar="N", help="1 to 5")
    parser.add_argument("--arms", nargs="+", default=[], metavar="NAME", help="only these arms")
    parser.add_argument("--report", action="store_true", help="score on test what is done")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if given is None else list(given)
    arguments = parse(words)
    torch.set_num_threads(arguments.threads)
    suite = arguments.runs / "suite"
    facts = {
        "command": describe_command("multitask.py", [], pack=True),
        **environment("cuda" if torch.cuda.is_available() else "cpu", "float32", 1, "the recipes'"),
        "threads": arguments.threads,
    }
    try:
        if not (suite / FACTS).is_file():
            make(data_root(DataConfig(root=arguments.data)), suite)
        seeds = SEEDS[: max(1, min(arguments.seeds, len(SEEDS)))]
        comparison = Comparison(arguments.runs, suite, arguments.results, seeds)
        if arguments.report:
            from multitask_report import report

            report(comparison, facts)
        else:
            comparison.go(arguments.sitting, arguments.arms)
    except SpeechadaptError as error:
        print(f"multitask: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
