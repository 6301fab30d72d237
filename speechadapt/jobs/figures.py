"""Scores of the texts of a job, from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speechadapt.jobs.ledger import Record
from speechadapt.metrics.wer import CorpusScore, Pair, score_pairs


class TextFigures:
    """Word and character error rates of all items with a reference (see `kind.Figures`).

    Args:
        normaliser: Of both sides.
        key: The text's name in the rows.
    """

    def __init__(self, normaliser: str, key: str = "pred_text") -> None:
        self._normaliser, self._key = normaliser, key
        self._pairs: list[Pair] = []

    def add(self, record: Record) -> None:
        """Take in one item's record; one without a text counts as all deletions."""
        row = record.row
        if record.status != "skipped" and row.get("text") is not None:
            said = row.get(self._key)
            speaker, lang = row.get("speaker"), row.get("lang")
            self._pairs.append(Pair(record.id, row["text"], said, speaker, lang))

    def score(self) -> CorpusScore | None:
        """Return the scores; None where there are no references."""
        return score_pairs(self._pairs, self._normaliser) if self._pairs else None

    def to_json(self) -> dict[str, Any]:
        """Return nothing: the scores are all there is."""
        return {}

    def lines(self) -> Sequence[tuple[str, str]]:
        """Return nothing: the scores are all there is."""
        return ()
