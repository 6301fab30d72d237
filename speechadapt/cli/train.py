"""Train a model by a recipe: `speechadapt train recipe=<task>/<name> key=value ...`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

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
        _report(run.folder, result.step, run.trainer.steps, result.best)
    if result.signal:
        raise typer.Exit(128 + result.signal)


def _report(folder: Path, step: int, steps: int, best: tuple[float, int] | None) -> None:
    if best is not None:
        print(f"best dev score {best[0]:.4g} at step {best[1]}: {folder / 'best'}")
    if step >= steps:
        print(f"finished after {step} steps: {folder / 'last'}")
    else:
        print(f"stopped at step {step} of {steps}; the same command goes on.", file=sys.stderr)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
