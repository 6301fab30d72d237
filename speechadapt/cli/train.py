"""Train a model by a recipe: `speechadapt train recipe=<task>/<name> key=value ...`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from speechadapt.config.resolve import Run
    from speechadapt.training.loop import TrainResult

HELP = "Train a model by a recipe."


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="recipe=TASK/NAME [KEY=VALUE]...",
            help="The recipe, group options (trainer=debug, machine=gpu, data=pack) and single "
            "settings (trainer.steps=500), in Hydra's grammar.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    config_dir: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of your own recipes/ and groups; may be given again."),
    ] = None,
) -> None:
    """Train a model by a recipe, or go on with a run that was stopped.

    Every setting of a recipe can be given as key=value; all that is wrong is reported at once. The
    run's folder (run.folder=, by default runs/TASK-NAME) keeps settings, versions and hashes of the
    data: the same command goes on where the run stopped, another one is refused. Several processes:
    torchrun --nproc-per-node N -m speechadapt train ...
    """
    from speechadapt.config.plan import describe
    from speechadapt.config.resolve import resolve
    from speechadapt.config.run_folder import check_run_folder, open_run_folder
    from speechadapt.training.loop import train

    run = resolve(words or [], config_dir or [])
    check_run_folder(run)
    objective = run.module.build(run.config)
    if dry_run:
        print(describe(run, objective))
        return
    if _rank() == 0:
        open_run_folder(run, objective.ids, int(os.environ.get("WORLD_SIZE", "1")))
    result = train(objective, run.trainer, run.folder)
    if _rank() == 0:
        _report(run, result)
        if result.finished and (text := objective.report(run.folder)):
            print(text)
    if result.signal:
        raise typer.Exit(128 + result.signal)


def _report(run: Run, result: TrainResult) -> None:
    steps, folder = run.trainer.steps, run.folder
    if result.best is not None:
        print(f"best dev score {result.best[0]:.4g} at step {result.best[1]}: {folder / 'best'}")
    if not result.finished:
        print(
            f"stopped at step {result.step} of {steps}; the same command goes on.", file=sys.stderr
        )
        return
    early = "" if result.step >= steps else f" of {steps}, with no better score since"
    print(f"finished after {result.step} steps{early}: {folder / 'last'}")


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
