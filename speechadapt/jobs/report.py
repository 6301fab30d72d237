"""What a job comes to: its rows in plan order, what failed, counts, scores and speed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speechadapt.core.files import atomic_write, atomic_write_json, write_lines
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import STATUSES, Ledger, Record
from speechadapt.jobs.plan import Plan
from speechadapt.jobs.speed import RunSpeed
from speechadapt.metrics.bootstrap import Interval, bootstrap_ratio
from speechadapt.metrics.wer import CorpusScore, EditCounts


@dataclass
class Totals:
    """Sums over the items of a job.

    Args:
        items: Items of the plan.
        pending: Items without a journal line.
        statuses: Items by status.
        reasons: Items by reason.
        flags: Items by flag.
        audio_s: Seconds of audio decoded.
        decode_s: Seconds of reading and decoding, over all runs and workers.
        model_s: Seconds of the model, over all runs and workers.
        speech_s: Seconds of speech by voice activity.
        covered_s: Seconds of it that text covers.
        watched: Items in which speech was looked for.
    """

    items: int = 0
    pending: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    audio_s: float = 0.0
    decode_s: float = 0.0
    model_s: float = 0.0
    speech_s: float = 0.0
    covered_s: float = 0.0
    watched: int = 0

    def add(self, record: Record) -> None:
        """Count one record."""
        self.statuses[record.status] += 1
        self.flags.update(record.flags)
        if record.reason is not None:
            self.reasons[record.reason] += 1
        self.audio_s += record.audio_s
        self.decode_s += record.decode_s
        self.model_s += record.model_s
        if record.speech_s is not None:
            self.watched += 1
            self.speech_s += record.speech_s
            self.covered_s += record.covered_s or 0.0

    @property
    def failed(self) -> int:
        """Items without a whole transcript."""
        return self.statuses["failed"] + self.statuses["partial"]

    @property
    def coverage(self) -> float | None:
        """Share of the speech that text covers; None where nobody looked or nobody speaks."""
        return self.covered_s / self.speech_s if self.speech_s > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON types."""
        share = self.coverage
        return {
            "items": self.items,
            "pending": self.pending,
            "statuses": {name: self.statuses[name] for name in STATUSES if self.statuses[name]},
            "reasons": dict(sorted(self.reasons.items())),
            "flags": dict(sorted(self.flags.items())),
            "audio_s": round(self.audio_s, 3),
            "decode_s": round(self.decode_s, 3),
            "model_s": round(self.model_s, 3),
            "coverage": {
                "items": self.watched,
                "speech_s": round(self.speech_s, 2),
                "covered_s": round(self.covered_s, 2),
                "share": None if share is None else round(share, 4),
            },
        }


@dataclass(frozen=True)
class Report:
    """Everything a person wants to know at the end.

    Args:
        output: The output folder, or its URL.
        totals: Sums over the items.
        score: Scores against references; None where there are none.
        speed: How fast this run was; None where nothing went through the model.
        complete: Whether every item of the plan has a journal line.
        interrupted: Whether the run was asked to stop.
        more: What the kind of job adds, as JSON types.
        more_lines: The same for a person, as names and texts.
    """

    output: Path | str
    totals: Totals
    score: CorpusScore | None
    speed: RunSpeed | None
    complete: bool
    interrupted: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)
    more_lines: Sequence[tuple[str, str]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "complete": self.complete,
            "interrupted": self.interrupted,
            **self.totals.to_json(),
            "score": None if self.score is None else score_json(self.score),
            **self.more,
            "speed": None if self.speed is None else self.speed.to_json(),
            "output": str(self.output),
        }


def finish(
    folder: JobFolder,
    plan: Plan,
    normaliser: str,
    speed: RunSpeed | None = None,
    interrupted: bool = False,
) -> Report:
    """Write `failed.jsonl`, `summary.json` and, once every item is done, the job's rows.

    Args:
        folder: The job.
        plan: Its plan.
        normaliser: The normaliser of the scores.
        speed: How fast this run was.
        interrupted: Whether the run was asked to stop.

    Returns:
        The report that was written.
    """
    ledger, kind = Ledger(folder.journal), folder.kind()
    totals = Totals(items=len(plan.items))
    figures = kind.figures(normaliser)
    failed: list[dict[str, Any]] = []
    for record in current_records(plan, ledger):
        if record is None:
            totals.pending += 1
            continue
        totals.add(record)
        figures.add(record)
        if record.status in ("failed", "partial"):
            failed.append(_failed_row(record))
    complete = totals.pending == 0
    if complete:
        write_rows(kind.rows(folder), plan, ledger)
    report = Report(
        output=folder.place.shown,
        totals=totals,
        score=figures.score(),
        speed=speed,
        complete=complete,
        interrupted=interrupted,
        more=figures.to_json(),
        more_lines=figures.lines(),
    )
    write_lines(folder.failed, failed)
    atomic_write_json(folder.summary, report.to_json())
    folder.place.push()
    return report


def current_records(plan: Plan, ledger: Ledger) -> Iterator[Record | None]:
    """Yield each item's record in plan order; None where it has none for its present content."""
    records = ledger.records(item.id for item in plan.items)
    for item, record in zip(plan.items, records, strict=True):
        yield record if record is not None and record.key == item.key else None


def write_rows(path: Path, plan: Plan, ledger: Ledger) -> None:
    """Write the rows of all items that have one, in plan order, whole or not at all.

    Args:
        path: The file.
        plan: Gives the order.
        ledger: Gives the rows.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            for record in current_records(plan, ledger):
                if record is not None:
                    text = json.dumps(dict(record.row), ensure_ascii=False) + "\n"
                    handle.write(text.encode("utf-8", "surrogateescape"))

    atomic_write(path, write)


def score_json(score: CorpusScore) -> dict[str, Any]:
    """Return a corpus score as JSON types, rates with their intervals as fractions."""
    words, characters = intervals(score)
    return {
        "headline": score.headline,
        "normalisers": list(score.normalisers),
        "scorer": score.scorer,
        "references": score.references,
        "missing_hypotheses": score.missing,
        "wer": _rate_json(score.words, words),
        "cer": _rate_json(score.characters, characters),
        "non_speech": {
            "items": len(score.non_speech),
            "inserted_words": score.inserted_in_non_speech,
        },
    }


def intervals(score: CorpusScore) -> tuple[Interval, Interval]:
    """Return the 95 % bootstrap intervals of the word and the character error rate."""
    speakers = [item.pair.speaker for item in score.items]
    counts = [[item.words for item in score.items], [item.characters for item in score.items]]
    words, characters = (
        bootstrap_ratio([one.edits for one in side], [one.reference for one in side], speakers)
        if side
        else _no_interval()
        for side in counts
    )
    return words, characters


def _no_interval() -> Interval:
    return Interval(math.nan, math.nan, math.nan, 0.95, "item", 0, None, 0, 0)


def _rate_json(counts: EditCounts, interval: Interval) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 5)

    return {
        "rate": number(counts.rate),
        "low": number(interval.low),
        "high": number(interval.high),
        "interval": interval.description,
        **asdict(counts),
    }


def _failed_row(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "audio_filepath": record.row.get("audio_filepath"),
        "status": record.status,
        "reason": record.reason,
        "message": record.message,
    }
