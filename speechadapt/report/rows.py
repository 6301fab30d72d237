"""What a page shows of each item: a lean JSON row, the worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Ledger, Record
from speechadapt.jobs.manage import open_job
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.report import Totals, current_records
from speechadapt.metrics.wer import CorpusScore, ItemScore
from speechadapt.report.differences import Step, text_differences
from speechadapt.report.links import embedded_audio, relative_link

_ORDER = {"failed": 0, "partial": 1, "skipped": 3}


@dataclass(frozen=True)
class PageJob:
    """A job as its page shows it.

    Args:
        folder: The job.
        identity: What the job was begun with.
        summary: The summary of its last run; empty where none was written.
        totals: Sums over the items.
        score: Scores against references; None where there are none.
        lines: What the kind of job says beside, as names and texts.
        items: Items that were done, the worst first.
    """

    folder: JobFolder
    identity: Mapping[str, Any]
    summary: Mapping[str, Any]
    totals: Totals
    score: CorpusScore | None
    lines: tuple[tuple[str, str], ...]
    items: tuple[PageItem, ...]


@dataclass(frozen=True)
class PageItem:
    """One item that was done.

    Args:
        item: Its place in the plan.
        record: What became of it.
        score: Its edits; None where it has no reference with words.
        steps: Where its text differs from the reference.
    """

    item: PlanItem
    record: Record
    score: ItemScore | None = None
    steps: Sequence[Step] = field(default=())

    @property
    def error_rate(self) -> float | None:
        """Word errors per word of the reference; None without one."""
        return None if self.score is None else self.score.words.rate

    @property
    def rtf(self) -> float | None:
        """Seconds of the model for a second of audio; None where it heard nothing."""
        record = self.record
        return record.model_s / record.audio_s if record.model_s and record.audio_s else None


def read_job(output: Path, summary: Mapping[str, Any]) -> PageJob:
    """Read a job, finished or not, and score what there is.

    Args:
        output: The job's output folder.
        summary: Its `summary.json`.

    Raises:
        JobError: There is no such job.
    """
    folder, plan = open_job(output)
    identity = folder.read_identity()
    normaliser = identity["options"]["normaliser"]
    figures = folder.kind().figures(normaliser)
    totals = Totals(items=len(plan.items))
    found: list[PageItem] = []
    for item, record in zip(plan.items, current_records(plan, Ledger(folder.journal)), strict=True):
        if record is None:
            totals.pending += 1
        else:
            totals.add(record)
            figures.add(record)
            found.append(PageItem(item, record))
    score = figures.score()
    if score is not None:
        found = _with_scores(found, score, normaliser)
    found.sort(key=_worst_first)
    return PageJob(folder, identity, summary, totals, score, tuple(figures.lines()), tuple(found))


def make_rows(job: PageJob, page: Path, embed_bytes: int = 0) -> list[dict[str, Any]]:
    """Return the rows of a page, as JSON types; what an item does not have is left out.

    Args:
        job: The job.
        page: The page's folder, from which its links go out.
        embed_bytes: Most bytes of audio that stand in the page itself, the worst items first.
    """
    rows = []
    for each in job.items:
        row = _facts(each) | _links(each, job.folder.output, page)
        if embed_bytes > 0:
            item = each.item
            audio = embedded_audio(Path(item.path), item.offset, item.duration)
            if audio is not None and len(audio) <= embed_bytes:
                row["audio"] = audio
            embed_bytes -= len(audio or "")
        rows.append({name: value for name, value in row.items() if value not in (None, "", [], {})})
    return rows


def _facts(each: PageItem) -> dict[str, Any]:
    record, score = each.record, each.score
    row = record.row
    return {
        "name": row.get("audio_filepath", record.id),
        "at": row.get("offset"),
        "status": record.status,
        "reason": record.reason,
        "message": record.message,
        "flags": list(record.flags),
        "seconds": row.get("duration"),
        "rtf": _rounded(each.rtf),
        "wer": None if score is None else _rounded(score.words.rate),
        "cer": None if score is None else _rounded(score.characters.rate),
        "edits": None if score is None else [score.words.edits, score.words.reference],
        "steps": [list(step) for step in each.steps],
        "text": row.get("pred_text"),
        "said": row.get("text") if score is None else None,
        "speaker": row.get("speaker"),
        "attempts": record.attempts if record.attempts > 1 else None,
        "scores": row.get("scores"),
    }


def _links(each: PageItem, output: Path, page: Path) -> dict[str, Any]:
    item, row = each.item, each.record.row
    pictures = row.get("pictures") or {}
    after = row.get("restored_filepath")
    return {
        "audio": relative_link(Path(item.path), page, item.offset, item.duration),
        "after": relative_link(output / after, page) if after else None,
        "pictures": {
            name: relative_link(output / picture, page) for name, picture in pictures.items()
        },
    }


def _with_scores(found: Sequence[PageItem], score: CorpusScore, normaliser: str) -> list[PageItem]:
    steps = text_differences(
        [item.reference for item in score.items],
        [item.hypothesis for item in score.items],
        [item.pair.language for item in score.items],
        normaliser,
    )
    known = {item.pair.id: (item, found) for item, found in zip(score.items, steps, strict=True)}
    return [
        PageItem(each.item, each.record, *known[each.record.id])
        if each.record.id in known
        else each
        for each in found
    ]


def _worst_first(each: PageItem) -> tuple[int, float, bool]:
    rate, status = each.error_rate, each.record.status
    return _ORDER.get(status, 2), math.inf if rate is None else -rate, status != "flagged"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
