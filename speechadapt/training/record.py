"""What a run leaves for people to read: `log.jsonl`, TensorBoard events, lines on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from speechadapt.core.errors import MissingExtra
from speechadapt.core.files import append_line, atomic_write_text
from speechadapt.training.progress import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Record:
    """Writes figures and scores as they come.

    Rows of the log past `step` are dropped first: a run that was killed after its last checkpoint
    repeats those steps.

    Args:
        folder: The run's folder.
        steps: Steps of the schedule.
        step: Steps done when this sitting starts.
        tensorboard: Also write TensorBoard events, in `folder/tensorboard`.

    Raises:
        MissingExtra: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, steps: int, step: int, tensorboard: bool = False) -> None:
        self._path = folder / "log.jsonl"
        self._writer = _open_writer(folder / "tensorboard", step) if tensorboard else None
        trim_log(self._path, step)
        self._progress = Progress(steps, step)

    def figures(self, step: int, seconds: float, figures: Mapping[str, float]) -> None:
        """Write the figures of a step.

        Args:
            step: Steps done.
            seconds: Time of the run so far.
            figures: Values by name.
        """
        rounded = {name: round(value, 6) for name, value in figures.items()}
        append_line(self._path, {"step": step, "seconds": round(seconds, 1)} | rounded)
        self._write(step, figures, "train")
        self._progress.update(step, figures)

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Write an evaluation."""
        append_line(self._path, {"step": step, "dev": dict(scores)})
        self._write(step, scores, "dev")
        self._progress.note(step, scores)

    def close(self) -> None:
        """Flush events and leave the terminal as it was found."""
        self._progress.close()
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, values: Mapping[str, float], group: str) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)


def trim_log(path: Path, step: int) -> None:
    """Drop the rows of a log that lie past `step`, and a last line that was cut short.

    Args:
        path: A file of JSON lines with a field `step`; nothing happens where there is none.
        step: Last step kept.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    if kept != lines:
        atomic_write_text(path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def _open_writer(folder: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("track", "trainer.tensorboard=true") from error
    return SummaryWriter(folder, purge_step=step + 1)
