"""Progress of a job: a bar on a terminal, one plain line every few seconds elsewhere, or JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast, runtime_checkable


@runtime_checkable
class Stream(Protocol):
    """Somewhere to print: a terminal, a pipe, a file."""

    def write(self, text: str, /) -> Any:
        """Take some text."""

    def flush(self) -> None:
        """Let it be seen."""

    def isatty(self) -> bool:
        """Say whether it is a terminal."""


@dataclass
class Tally:
    """How far a job is.

    Args:
        items: Items of the plan that this run answers for.
        audio_s: Their seconds of audio, by their headers.
        items_done: Items with a journal line.
        audio_done_s: Seconds of audio with a journal line.
        failed: Items with status `failed` or `partial`.
        run_audio_s: Seconds of audio done since this run began, for the rate.
    """

    items: int = 0
    audio_s: float = 0.0
    items_done: int = 0
    audio_done_s: float = 0.0
    failed: int = 0
    run_audio_s: float = 0.0

    def line(self, elapsed_s: float) -> str:
        """Return one plain line: counts, audio hours, RTFx, time left, failures."""
        left = self.eta_s(elapsed_s)
        eta = "-" if left is None else _clock(left)
        return (
            f"{self.items_done}/{self.items} files, "
            f"{self.audio_done_s / 3600:.2f}/{self.audio_s / 3600:.2f} h of audio, "
            f"{self.rate(elapsed_s):.1f}x real time, {eta} left, {self.failed} failed"
        )

    def rate(self, elapsed_s: float) -> float:
        """Return seconds of audio per second of this run (RTFx)."""
        return self.run_audio_s / elapsed_s if elapsed_s > 0 else 0.0

    def eta_s(self, elapsed_s: float) -> float | None:
        """Return the seconds left at the rate so far; None before anything is done."""
        rate = self.rate(elapsed_s)
        return max(0.0, self.audio_s - self.audio_done_s) / rate if rate > 0 else None

    def to_row(self, elapsed_s: float) -> dict[str, Any]:
        """Return the numbers as one JSON row."""
        left = self.eta_s(elapsed_s)
        return {
            "event": "progress",
            "items_done": self.items_done,
            "items": self.items,
            "audio_done_s": round(self.audio_done_s, 3),
            "audio_s": round(self.audio_s, 3),
            "rtfx": round(self.rate(elapsed_s), 2),
            "eta_s": None if left is None else round(left, 1),
            "failed": self.failed,
            "elapsed_s": round(elapsed_s, 1),
        }


@runtime_checkable
class Progress(Protocol):
    """Shows a tally while a run goes on."""

    def show(self, tally: Tally) -> None:
        """Show the tally, as often as suits the medium."""

    def close(self, tally: Tally) -> None:
        """Show the last state and let go of the terminal."""


class PlainProgress:
    """Writes a line now and then, for logs and for programs.

    Args:
        stream: Where to write.
        every_s: Seconds between lines.
        as_json: Write JSON rows instead of text.
    """

    def __init__(self, stream: Stream, every_s: float = 5.0, as_json: bool = False) -> None:
        self._stream = stream
        self._every_s = every_s
        self._as_json = as_json
        self._began = time.monotonic()
        self._next = self._began + every_s
        self._shown = -1

    def show(self, tally: Tally) -> None:
        """Write a line if the last one is old enough."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every_s
            self._write(tally, now - self._began)

    def close(self, tally: Tally) -> None:
        """Write the last line, unless it was just written."""
        if self._as_json or self._shown != tally.items_done:
            self._write(tally, time.monotonic() - self._began)

    def _write(self, tally: Tally, elapsed_s: float) -> None:
        self._shown = tally.items_done
        text = json.dumps(tally.to_row(elapsed_s)) if self._as_json else tally.line(elapsed_s)
        self._stream.write(text + "\n")
        self._stream.flush()


class BarProgress:
    """A bar on a terminal.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: Stream) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=Console(file=cast(IO[str], stream)),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._began = time.monotonic()
        self._bar.start()

    def show(self, tally: Tally) -> None:
        """Move the bar."""
        line = tally.line(time.monotonic() - self._began)
        total = tally.audio_s or None
        self._bar.update(self._task, total=total, completed=tally.audio_done_s, description=line)

    def close(self, tally: Tally) -> None:
        """Remove the bar and leave one plain line."""
        self._bar.stop()
        self._bar.console.print(
            tally.line(time.monotonic() - self._began), highlight=False, soft_wrap=True
        )


def make_progress(as_json: bool) -> Progress:
    """Choose how to show progress: JSON on standard output, else a bar or lines on standard error.

    Args:
        as_json: Whether JSON rows were asked for.

    Returns:
        The display; it is running.
    """
    if as_json:
        return PlainProgress(sys.stdout, every_s=1.0, as_json=True)
    if sys.stderr.isatty():
        return BarProgress(sys.stderr)
    return PlainProgress(sys.stderr)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
