"""Compare adapter methods with full fine-tuning and a head alone, every arm treated alike.

    python tools/grid.py SUBJECT [--arms NAME ...] [--sitting MINUTES]   train what is missing
    python tools/grid.py SUBJECT --report   score the arms that are done on test, write the tables

A subject is a language, which has a recipe `recipes/adapt/language_<SUBJECT>.yaml`, `sounds`, the
folds of `recipes/adapt/sounds_folds.yaml`, or a comparison of `grid_comparisons.py` on
`recipes/adapt/compact.yaml`. Every arm gets the same steps and batches. Learning
rates are chosen on dev; the runs at the chosen rates alone are scored on test, once. Each finished
run is one line of the results file, so a later sitting does what is missing, and `--arms` says what
comes first; nothing about an arm hangs on the others, but for those that take another one's rate.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_facts import describe_command, environment
from grid_arms import NamedArms
from grid_comparisons import COMPARISONS
from grid_languages import Language, languages
from grid_plan import ROOT, WHOLE, Run, of_kind, read_results
from grid_report import report
from grid_sounds import Sounds
from grid_study import Batches, Study
from sittings import sit

from speechadapt.config.resolve import resolve
from speechadapt.core.errors import ConfigError, SpeechadaptError, near_misses
from speechadapt.core.files import append_line, hash_file, hash_json, read_json
from speechadapt.models.build import find_model
from speechadapt.training.loop import train

OTHERS: Mapping[str, Callable[[], Study]] = {
    "sounds": Sounds,
    **{name: partial(NamedArms, one) for name, one in COMPARISONS.items()},
}


class Grid:
    """The runs of one comparison.

    Args:
        study: What is compared.
        folder: Where runs leave what they trained.
        results: The results file.
        settings: What is set beside the recipe, `key=value`, and is no part of the protocol.
        facts: What stands in every line: the machine and the command.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        results: Path,
        settings: Sequence[str],
        facts: Mapping[str, Any],
    ) -> None:
        self.study = study
        self.folder = folder / study.name
        self.results = results
        self.facts = dict(facts)
        self.recipe: Any = resolve([f"recipe={study.recipe}", *settings]).config
        base = find_model(self.recipe.base or None)
        self.protocol = study.protocol(hash_file(base / "model.safetensors"))
        self._batches: Batches = {}

    def lines(self) -> list[dict[str, Any]]:
        """Return what is known of this subject under this protocol."""
        return read_results(self.results, self.study.subject, self.study.name, self.protocol)

    def missing(self, names: Sequence[str] = ()) -> list[Run]:
        """Return the runs that are to come next, in order.

        Args:
            names: Arms to look at; all where empty.

        Raises:
            ConfigError: There is no such arm.
        """
        plan = self.study.plan
        for name in names:
            if name not in plan.arms:
                raise ConfigError(f"there is no arm '{name}'.{near_misses(name, plan.arms)}")
        return plan.missing(names or plan.arms, of_kind(self.lines(), "run"))

    def config(self, run: Run) -> Any:
        """Return the settings of a run: the recipe's, with arm, size, rate and seed."""
        return self.study.config(self.recipe, run)

    def train(self, run: Run) -> bool:
        """Do one run and note it; return whether it came to its end."""
        config, target = self.config(run), self.folder / run.name
        shutil.rmtree(target, ignore_errors=True)
        started = time.monotonic()
        objective = self.study.build(config, run, self._batches)
        result = train(objective, config.trainer, target)
        if not result.finished:
            shutil.rmtree(target, ignore_errors=True)
            return False
        shutil.rmtree(target / "checkpoints")
        shutil.rmtree(target / "best")
        append_line(self.results, self._line(run, config, time.monotonic() - started))
        return True

    def _line(self, run: Run, config: Any, seconds: float) -> dict[str, Any]:
        report = read_json(self.folder / run.name / "report.json")
        counts = report["parameters"]
        head = counts["trained_by_part"].get("head", 0)
        return {
            "kind": "run",
            self.study.subject: self.study.name,
            "arm": run.arm,
            "rate": run.rate,
            "seed": run.seed,
            **self.study.facts(config, report),
            "steps": config.trainer.steps,
            "trained": counts["trained"] - head,
            "head": head,
            "encoder": counts["encoder"],
            "settings": dict(config.adapter) if config.arm not in WHOLE else {},
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

        def told(run: Run) -> str:
            line = self.lines()[-1]
            return f"{run.name}: dev {line['score']} {100 * line['dev']:.1f} %"

        sit(minutes, lambda: self.missing(names), self.train, told)


def config_hash(config: Any) -> str:
    """Return a hash of a run's settings, without where its data lie and what is only shown."""
    data = dataclasses.replace(config.data, root="")
    trainer = dataclasses.replace(config.trainer, threads=0, log_every=1, checkpoint_every=1)
    return hash_json(dataclasses.asdict(dataclasses.replace(config, data=data, trainer=trainer)))[
        :16
    ]


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subject", choices=[*languages(), *OTHERS])
    parser.add_argument("--base", default="", help="another base than the recipe's")
    parser.add_argument("--data", default="", help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "grid", metavar="FOLDER")
    parser.add_argument("--results", type=Path, metavar="FILE", help="default: in docs/results")
    parser.add_argument("--sitting", type=float, metavar="MINUTES", help="start no run after this")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads")
    parser.add_argument("--arms", nargs="+", default=[], metavar="NAME", help="only these arms")
    parser.add_argument("--report", action="store_true", help="score on test what is done")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    arguments = parse(sys.argv[1:] if given is None else given)
    torch.set_num_threads(arguments.threads)
    settings = [f"data.root={arguments.data}"] if arguments.data else []
    based = ["--base", arguments.base] if arguments.base else []
    settings += [f"base={arguments.base}"] if arguments.base else []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": describe_command("grid.py", [arguments.subject, *based], pack=True),
        **environment(device, "float32", arguments.threads, "the recipe's"),
    }
    try:
        named = OTHERS.get(arguments.subject)
        study = Language(arguments.subject) if named is None else named()
        results = arguments.results or ROOT / "docs" / "results" / f"{study.results}.jsonl"
        grid = Grid(study, arguments.runs, results, settings, facts)
        if arguments.report:
            report(grid)
        else:
            grid.go(arguments.sitting, arguments.arms)
    except SpeechadaptError as error:
        print(f"grid: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
