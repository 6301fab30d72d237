"""What a restoration's report says beside counts and speed: scores before and after, the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from speechadapt.jobs.figures import TextFigures
from speechadapt.jobs.ledger import Record
from speechadapt.jobs.report import intervals, score_json
from speechadapt.metrics.wer import CorpusScore, EditCounts


class RestoreFigures:
    """Sums over the rows of a restoration (see `kind.Figures`).

    Args:
        normaliser: Of the words.
    """

    def __init__(self, normaliser: str) -> None:
        self._after, self._before = (
            TextFigures(normaliser, key) for key in ("pred_text", "pred_before")
        )
        self._judged = False
        self._kept = 0
        self._gates: Counter[str] = Counter()
        self._scores: dict[str, list[tuple[float, ...]]] = {}

    def add(self, record: Record) -> None:
        """Take in one item's record."""
        row = record.row
        self._judged = self._judged or "pred_before" in row
        self._after.add(record)
        self._before.add(record)
        met = row.get("kept_original") or []
        self._kept += bool(met)
        self._gates.update(reason.split()[0] for reason in met)
        for name, value in row.get("scores", {}).items():
            sides = tuple(value.values()) if isinstance(value, dict) else (value,)
            if None not in sides:
                self._scores.setdefault(name, []).append(sides)

    def score(self) -> CorpusScore | None:
        """Return the scores of what was heard after; None where nobody listened."""
        return self._after.score() if self._judged else None

    def to_json(self) -> dict[str, Any]:
        """Return the gate's work, the scores' means, and the scores of what was heard before."""
        before = self._before.score() if self._judged else None
        return {
            "restoration": {
                "kept_original": self._kept,
                "gates": dict(sorted(self._gates.items())),
                "scores": {
                    name: _means(sides) | {"items": len(sides)}
                    for name, sides in self._scores.items()
                },
                "before": None if before is None else score_json(before),
            }
        }

    def lines(self) -> Sequence[tuple[str, str]]:
        """Return the same for a person."""
        found: list[tuple[str, str]] = []
        before = self._before.score() if self._judged else None
        if before is not None and before.items:
            words, characters = intervals(before)
            found.append(("WER before", _rate(before.words, words.low, words.high)))
            found.append(("CER before", _rate(before.characters, characters.low, characters.high)))
        for name, sides in self._scores.items():
            means = [f"{value:.3f}" for value in _means(sides).values()]
            found.append((name, f"{' -> '.join(means)} (mean of {len(sides)} items)"))
        if self._kept:
            why = ", ".join(f"{count} by {name}" for name, count in sorted(self._gates.items()))
            found.append(("kept original", f"{self._kept}: {why}"))
        return found


def _means(sides: Sequence[tuple[float, ...]]) -> dict[str, float]:
    names = ("before", "after") if len(sides[0]) == 2 else ("mean",)
    columns = zip(*sides, strict=True)
    return {
        name: round(sum(column) / len(sides), 4)
        for name, column in zip(names, columns, strict=True)
    }


def _rate(counts: EditCounts, low: float, high: float) -> str:
    return (
        f"{counts.rate:.2%} [{low:.2%}, {high:.2%}]  {counts.insertions} insertions, "
        f"{counts.deletions} deletions, {counts.substitutions} substitutions"
    )
