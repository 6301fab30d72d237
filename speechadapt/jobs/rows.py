"""The rows of `transcripts.jsonl`: one per item, failed ones too, nothing in them but facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speechadapt.jobs.plan import PlanItem


def make_row(
    item: PlanItem,
    status: str,
    *,
    pred_text: str | None = None,
    flags: Sequence[str] = (),
    reason: str | None = None,
    duration: float | None = None,
) -> dict[str, Any]:
    """Build an item's row.

    Args:
        item: The item.
        status: See `ledger.STATUSES`.
        pred_text: What was recognised; None where nothing could be.
        flags: Reasons for doubt.
        reason: See `ledger.REASONS`; None where nothing is wrong.
        duration: Seconds of audio; None where nobody knows.

    Returns:
        `audio_filepath, duration, text, pred_text, flags, status, reason`, and `offset`, `lang` and
        `speaker` where the input named them.
    """
    row: dict[str, Any] = {"audio_filepath": item.audio_filepath}
    if item.offset:
        row["offset"] = item.offset
    row |= {
        "duration": None if duration is None else round(duration, 3),
        "text": item.text,
        "pred_text": pred_text,
        "flags": list(flags),
        "status": status,
        "reason": reason,
    }
    for name in ("lang", "speaker"):
        if getattr(item, name) is not None:
            row[name] = getattr(item, name)
    return row
