"""Draw the learning curves of runs: loss and dev score against the step.

    python tools/plot_log.py runs/NAME [runs/OTHER ...] --output docs/results/NAME.png

Reads `log.jsonl` of every run folder. Where a run was resumed from an earlier step, the later
lines count. The dev score is the word error rate where the log has one, else the dev loss. Needs
the extra `report`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechadapt.core.errors import DataError, MissingExtra, SpeechadaptError
from speechadapt.core.files import atomic_write, read_lines

SCORES = ("wer", "loss")


@dataclass(frozen=True)
class Curves:
    """What a log holds.

    Args:
        name: The run.
        loss: Training loss by step.
        score: Name of the dev score.
        dev: Dev score by step.
    """

    name: str
    loss: dict[int, float]
    score: str
    dev: dict[int, float]


def read_log(folder: Path) -> Curves:
    """Read the log of a run.

    Raises:
        DataError: There is no log, it is damaged, or it holds no loss.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        raise DataError(f"'{folder}' was given as a run; it holds no log.jsonl.")
    loss: dict[int, float] = {}
    rows: dict[int, dict[str, float]] = {}
    try:
        for _, row in read_lines(path):
            step = int(row["step"])
            # A run resumed from an earlier checkpoint writes its steps once more.
            later = [one for one in (*loss, *rows) if one > step]
            for one in later:
                loss.pop(one, None)
                rows.pop(one, None)
            if "dev" in row:
                rows[step] = row["dev"]
            elif "loss" in row:
                loss[step] = float(row["loss"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if not loss:
        raise DataError(f"{path} holds no loss yet.")
    score = next((name for name in SCORES if all(name in row for row in rows.values())), "")
    dev = {step: float(row[score]) for step, row in rows.items()} if score else {}
    return Curves(folder.name, loss, score, dev)


def smoothed(values: Sequence[float], width: int) -> list[float]:
    """Average every value with up to `width - 1` before it, passing over what is no number."""
    found = []
    for end in range(1, len(values) + 1):
        window = [one for one in values[max(0, end - width) : end] if math.isfinite(one)]
        found.append(sum(window) / len(window) if window else math.nan)
    return found


def draw(runs: Sequence[Curves], output: Path) -> None:
    """Draw the curves of all runs into one picture of two panels.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("report", "tools/plot_log.py") from error
    figure = Figure(figsize=(8, 3.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for number, run in enumerate(runs):
        colour = f"C{number}"
        steps, values = list(run.loss), list(run.loss.values())
        left.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        left.plot(steps, smoothed(values, 10), color=colour, label=run.name)
        label = f"{run.name}: {run.score}"
        right.plot(list(run.dev), list(run.dev.values()), "o-", color=colour, label=label, ms=3)
    _name(left, "training loss", runs)
    scores = sorted({run.score for run in runs if run.score})
    _name(right, f"dev {' / '.join(scores)}" if scores else "no evaluation yet", runs)
    if scores == ["wer"]:
        right.set_ylim(0, 1.05)
        right.set_ylabel("fraction of words")
    # Without its version in the file, the same log gives the same picture.
    atomic_write(
        output, lambda path: figure.savefig(path, format="png", metadata={"Software": None})
    )


def _name(axes: Any, title: str, runs: Sequence[Curves]) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if len(runs) > 1:
        axes.legend(fontsize=8)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder with a log.jsonl")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a .png file")
    arguments = parser.parse_args(words)
    try:
        draw([read_log(folder) for folder in arguments.runs], arguments.output)
    except SpeechadaptError as error:
        print(f"plot_log: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.output} ({arguments.output.stat().st_size / 1000:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
