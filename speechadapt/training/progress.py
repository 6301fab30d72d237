"""Progress of a training run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping


class Progress:
    """Shows steps, figures and the time left.

    Args:
        total: Steps of the schedule.
        done: Steps already done.
        show: Whether this process prints at all.
        every_s: Shortest time between plain lines.
    """

    def __init__(self, total: int, done: int, show: bool = True, every_s: float = 10.0) -> None:
        self._total = total
        self._first = done
        self._started = time.monotonic()
        self._last = 0.0
        self._every_s = every_s
        self._show = show
        self._bar = None
        if show and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=total, completed=done)
            self._bar.start()

    def update(self, step: int, figures: Mapping[str, float]) -> None:
        """Show the figures of `step`."""
        if not self._show:
            return
        text = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
            return
        now = time.monotonic()
        if now - self._last >= self._every_s or step >= self._total:
            self._last = now
            rate = (step - self._first) / max(1e-9, now - self._started)
            left = (self._total - step) / max(1e-9, rate) / 60
            line = f"step {step}/{self._total} {text} | {rate:.2f} steps/s, {left:.0f} min left"
            sys.stderr.write(line + "\n")

    def note(self, step: int, scores: Mapping[str, float]) -> None:
        """Show an evaluation."""
        if self._show:
            text = " ".join(f"{name} {value:.4g}" for name, value in scores.items())
            target = self._bar.console.print if self._bar is not None else None
            line = f"step {step} dev: {text}"
            if target is not None:
                target(line)
            else:
                sys.stderr.write(line + "\n")

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._bar is not None:
            self._bar.stop()
