"""The report as a person reads it: counts, rates with intervals, speed, coverage, places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, cast

from speechadapt.jobs.progress import Stream
from speechadapt.jobs.report import Report, intervals
from speechadapt.jobs.speed import RunSpeed, rates
from speechadapt.metrics.bootstrap import Interval
from speechadapt.metrics.wer import CorpusScore, EditCounts


def print_report(report: Report, stream: Stream) -> None:
    """Print a report as a table.

    Args:
        report: The report.
        stream: Where to; colours only on a terminal.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines(report):
        table.add_row(name, text)
    # Logs have no width of their own; a line of a table is better long than broken.
    width = None if stream.isatty() else 120
    console = Console(file=cast(IO[str], stream), width=width, highlight=False, markup=False)
    console.print(table)


def lines(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the report as names and texts.

    Args:
        report: The report.
    """
    totals = report.totals
    yield "items", _counts(report)
    yield "audio", f"{totals.audio_s / 60:.1f} min"
    if totals.reasons:
        reasons = ", ".join(f"{count} {name}" for name, count in sorted(totals.reasons.items()))
        yield "reasons", f"{reasons} (.speechadapt/failed.jsonl)"
    if totals.flags:
        yield "flags", ", ".join(f"{count} {name}" for name, count in sorted(totals.flags.items()))
    if report.score is not None:
        yield from _score_lines(report.score)
    yield from report.more_lines
    if totals.watched:
        yield "coverage", _coverage(report)
    if report.speed is not None:
        yield from _speed_lines(report.speed)
    yield "output", str(report.output)


def _counts(report: Report) -> str:
    totals = report.totals
    parts = [f"{count} {name}" for name, count in totals.to_json()["statuses"].items()]
    if totals.pending:
        parts.append(f"{totals.pending} not done yet")
    return f"{totals.items}: {', '.join(parts) or 'nothing'}"


def _score_lines(score: CorpusScore) -> Iterator[tuple[str, str]]:
    words, characters = intervals(score)
    rows = [
        ("WER", _rate(score.words, words, "words")),
        ("CER", _rate(score.characters, characters, "characters")),
    ]
    if score.items:
        yield from rows if score.headline == "wer" else reversed(rows)
        yield "interval", words.description
    if score.non_speech:
        text = f"{len(score.non_speech)} items, {score.inserted_in_non_speech} inserted words"
        yield "non-speech", f"{text} (in no rate)"
    if score.missing:
        yield "missing", f"{score.missing} items without a hypothesis, counted as deletions"
    yield "scored by", f"{score.scorer}; {', '.join(score.normalisers)}"


def _rate(counts: EditCounts, interval: Interval, unit: str) -> str:
    return (
        f"{counts.rate:.2%} [{interval.low:.2%}, {interval.high:.2%}]  "
        f"{counts.reference} {unit}: {counts.insertions} insertions, "
        f"{counts.deletions} deletions, {counts.substitutions} substitutions"
    )


def _coverage(report: Report) -> str:
    totals = report.totals
    share = totals.coverage
    if share is None:
        return f"no speech found in {totals.watched} items"
    return (
        f"{share:.1%} of {totals.speech_s:.1f} s of speech (voice activity, "
        f"{totals.watched} items) lies under text"
    )


def _speed_lines(speed: RunSpeed) -> Iterator[tuple[str, str]]:
    yield "model", f"{_factor(speed.model_rtf)}; warm-up: {speed.warm_up}"
    took = f"{speed.audio_s:.1f} s of audio in {speed.wall_s:.1f} s"
    yield "end to end", f"{_factor(speed.rtf)}; {took} from the start of the process, cold"
    workers = f", {speed.workers} workers" if speed.workers > 1 else ""
    yield "measured on", f"{speed.environment.line}{workers}"


def _factor(rtf: float | None) -> str:
    figures: dict[str, Any] = rates(rtf)
    return f"RTF {figures['rtf']}, RTFx {figures['rtfx']}"
