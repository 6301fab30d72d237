"""Compare every adapter method with full fine-tuning and a head alone on a new language.

    python tools/grid.py LANGUAGE [--arms NAME ...] [--sitting MINUTES]   train what is missing
    python tools/grid.py LANGUAGE --report   score the arms that are done on test, write the tables

A language is a recipe `recipes/adapt/language_<LANGUAGE>.yaml`. Every arm gets the same steps and
batches and the same four learning rates with one seed; the rate that is best on dev is run with two
more seeds, and these three runs alone are scored on test, once. Adapters are as wide as the budget
allows. Each finished run is one line of the results file, so a later sitting does what is missing,
and `--arms` says what comes first; nothing about an arm hangs on the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_facts import describe_command, environment
from grid_plan import (
    ARMS,
    ROOT,
    SETTINGS,
    SHARE,
    WHOLE,
    Run,
    languages,
    missing_runs,
    of_kind,
    protocol,
    read_results,
    recipe_of,
)

from speechadapt.adapters.catalog import method as method_of
from speechadapt.config.resolve import resolve
from speechadapt.core.errors import ConfigError, SpeechadaptError, near_misses
from speechadapt.core.files import append_line, hash_file, hash_json, read_json
from speechadapt.encoders.base import Encoder
from speechadapt.models.build import find_model
from speechadapt.training.adapt_budget import size_adapter
from speechadapt.training.adapt_inputs import Kept
from speechadapt.training.adapt_parts import load_base
from speechadapt.training.loop import train
from speechadapt.training.objective import Batch
from speechadapt.training.tasks import adapt

RESULTS = ROOT / "docs" / "results" / "languages.jsonl"


class SharedInputs:
    """Makes each batch once for all runs of a seed, whose arms all see the same.

    Args:
        make: Builds the batch of a step; see `AdaptInputs.batch`.
        store: Batches made before, by seed and step.
        seed: Of the run.
    """

    def __init__(
        self,
        make: Callable[[int, int, Kept], Batch],
        store: dict[tuple[int, int, int], Batch],
        seed: int,
    ) -> None:
        self.make = make
        self.store = store
        self.seed = seed

    def batch(self, step: int, rank: int, kept: Kept) -> Batch:
        """Return the batch of one step on one process; see `AdaptInputs.batch`."""
        key = (self.seed, step, rank)
        if key not in self.store:
            self.store[key] = self.make(step, rank, kept)
        return dict(self.store[key])


class Grid:
    """The runs of one language.

    Args:
        language: A name of `languages`.
        folder: Where runs leave what they trained.
        results: The results file.
        settings: What is set beside the recipe, `key=value`, and is no part of the protocol.
        facts: What stands in every line: the machine and the command.
    """

    def __init__(
        self,
        language: str,
        folder: Path,
        results: Path,
        settings: Sequence[str],
        facts: Mapping[str, Any],
    ) -> None:
        self.language = language
        self.folder = folder / language
        self.results = results
        self.words = [f"recipe={recipe_of(language)}", *settings]
        self.facts = dict(facts)
        self.recipe: adapt.Config = resolve(self.words).config
        self.base = find_model(self.recipe.base or None)
        self.protocol = protocol(language, hash_file(self.base / "model.safetensors"))
        self.arms = ARMS
        self._batches: dict[tuple[int, int, int], Batch] = {}
        self._encoder: Encoder | None = None

    def lines(self) -> list[dict[str, Any]]:
        """Return what is known of this language under this protocol."""
        return read_results(self.results, self.language, self.protocol)

    def missing(self, names: Sequence[str] = ()) -> list[Run]:
        """Return the runs that are to come next, in order.

        Args:
            names: Arms to look at; all where empty.

        Raises:
            ConfigError: There is no such arm.
        """
        for name in names:
            if name not in self.arms:
                raise ConfigError(f"there is no arm '{name}'.{near_misses(name, self.arms)}")
        return missing_runs(names or self.arms, of_kind(self.lines(), "run"))

    def config(self, run: Run) -> adapt.Config:
        """Return the settings of a run: the recipe's, with arm, size, rate and seed."""
        recipe = self.recipe
        trainer = dataclasses.replace(
            recipe.trainer,
            learning_rate=run.rate,
            seed=run.seed,
            evaluate_every=recipe.trainer.steps,
        )
        changes: dict[str, Any] = {"trainer": trainer, "adapter_rate": None, "head_rate": None}
        if run.arm in WHOLE:
            changes |= {"arm": run.arm}
        else:
            changes |= {"arm": "adapter", "method": run.arm, "adapter": self.sized(run.arm)}
        return dataclasses.replace(recipe, **changes)

    def sized(self, name: str) -> dict[str, Any]:
        """Return the settings that make a method's adapter as wide as the budget allows."""
        if self._encoder is None:
            self._encoder, _ = load_base(self.recipe.base, self.recipe.padding)
        whole = sum(part.numel() for part in self._encoder.model.parameters())
        given = SETTINGS.get(name, {})
        return dict(size_adapter(self._encoder, name, given, (), "none", SHARE * whole).settings)

    def build(self, run: Run) -> adapt.AdaptObjective:
        """Return the task of a run, whose batches are those of every other arm."""
        objective = adapt.build(self.config(run))
        make = objective.inputs.batch
        objective.inputs.batch = SharedInputs(make, self._batches, run.seed).batch  # type: ignore[method-assign]
        return objective

    def train(self, run: Run) -> bool:
        """Do one run and note it; return whether it came to its end."""
        config, target = self.config(run), self.folder / run.name
        shutil.rmtree(target, ignore_errors=True)
        started = time.monotonic()
        objective = self.build(run)
        result = train(objective, config.trainer, target)
        if not result.finished:
            shutil.rmtree(target, ignore_errors=True)
            return False
        shutil.rmtree(target / "checkpoints")
        shutil.rmtree(target / "best")
        append_line(self.results, self._line(run, config, time.monotonic() - started))
        return True

    def _line(self, run: Run, config: adapt.Config, seconds: float) -> dict[str, Any]:
        report = read_json(self.folder / run.name / "report.json")
        (scores,) = report["scores"]["last"].values()
        score = scores["headline"] if config.score == "headline" else config.score
        counts = report["parameters"]
        return {
            "kind": "run",
            "language": self.language,
            "arm": run.arm,
            "rate": run.rate,
            "seed": run.seed,
            "score": score,
            "dev": scores[score],
            "dev_wer": scores["wer"],
            "dev_cer": scores["cer"],
            "dev_items": scores["items"],
            "steps": config.trainer.steps,
            "trained": counts["trained"] - counts["trained_by_part"].get("head", 0),
            "head": counts["trained_by_part"].get("head", 0),
            "encoder": counts["encoder"],
            "settings": dict(config.adapter) if run.arm not in WHOLE else {},
            "merges": run.arm not in WHOLE and method_of(run.arm).merges,
            "file_bytes": report["file_bytes"],
            "step_s": round(report["seconds_per_step"], 4),
            "run_s": round(seconds, 1),
            "protocol": self.protocol,
            "config": config_hash(config),
            **self.facts,
        }

    def go(self, minutes: float | None, names: Sequence[str] = ()) -> None:
        """Do what is missing until nothing is, or until the sitting is over.

        Args:
            minutes: Length of the sitting; None sets no end.
            names: Arms to train; all where empty.
        """
        end = None if minutes is None else time.monotonic() + 60 * minutes
        lengths: list[float] = []
        while missing := self.missing(names):
            usual = statistics.median(lengths) if lengths else 0.0
            if end is not None and time.monotonic() + usual > end:
                print(f"the sitting is over; {len(missing)} runs or more are left")
                return
            started = time.monotonic()
            if not self.train(missing[0]):
                print(f"stopped during {missing[0].name}")
                return
            lengths.append(time.monotonic() - started)
            line = self.lines()[-1]
            print(f"{missing[0].name}: dev {line['score']} {100 * line['dev']:.1f} %", flush=True)


def config_hash(config: adapt.Config) -> str:
    """Return a hash of a run's settings, without where its data lie and what is only shown."""
    data = dataclasses.replace(config.data, root="")
    trainer = dataclasses.replace(config.trainer, threads=0, log_every=1, checkpoint_every=1)
    return hash_json(dataclasses.asdict(dataclasses.replace(config, data=data, trainer=trainer)))[
        :16
    ]


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("language", choices=languages())
    parser.add_argument("--data", default="", help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "grid", metavar="FOLDER")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--sitting", type=float, metavar="MINUTES", help="start no run after this")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads")
    parser.add_argument("--arms", nargs="+", default=[], metavar="NAME", help="only these arms")
    parser.add_argument("--report", action="store_true", help="score on test what is done")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if given is None else list(given)
    arguments = parse(words)
    torch.set_num_threads(arguments.threads)
    settings = [f"data.root={arguments.data}"] if arguments.data else []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": describe_command("grid.py", [arguments.language], pack=True),
        **environment(device, "float32", arguments.threads, "the recipe's"),
    }
    try:
        grid = Grid(arguments.language, arguments.runs, arguments.results, settings, facts)
        if arguments.report:
            from grid_report import report

            report(grid)
        else:
            grid.go(arguments.sitting, arguments.arms)
    except SpeechadaptError as error:
        print(f"grid: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
