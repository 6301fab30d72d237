"""Scores of named sets with their intervals, as table rows and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechadapt.metrics.bootstrap import RESAMPLES, Interval, bootstrap_ratio
from speechadapt.metrics.pairs import read_pairs
from speechadapt.metrics.wer import CorpusScore, EditCounts, Pair, score_pairs

HEADER = ("set", "items", "words", "WER % [lo, hi]", "CER %", "ins del sub", "clusters")


@dataclass(frozen=True)
class SetScore:
    """A named set with its scores and how far they can be trusted.

    Args:
        name: The set.
        score: The counts.
        wer: Word error rate with its interval.
        cer: Character error rate with its interval.
    """

    name: str
    score: CorpusScore
    wer: Interval
    cer: Interval

    @property
    def clusters(self) -> str:
        """What the interval was drawn from, such as `26 speakers` or `50 items, 1 speaker`."""
        drawn = _counted(self.wer.clusters, self.wer.unit)
        return f"{drawn}, 1 speaker" if self.wer.speakers == 1 else drawn


def score_set(
    name: str,
    pairs: Iterable[Pair],
    *,
    normaliser: str = "verbatim",
    language: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SetScore:
    """Score a named set with 95 % intervals.

    Args:
        name: The set.
        pairs: Its items.
        normaliser: As `load_normaliser` takes it.
        language: Language of all items; by default each item's own.
        resamples: Drawings of the bootstrap.
        seed: Seed of the bootstrap.
    """
    score = score_pairs(pairs, normaliser, language)
    speakers = [item.pair.speaker for item in score.items]

    def interval(counts: Sequence[EditCounts]) -> Interval:
        edits = [count.edits for count in counts]
        sizes = [count.reference for count in counts]
        return bootstrap_ratio(edits, sizes, speakers, resamples=resamples, seed=seed)

    return SetScore(
        name,
        score,
        wer=interval([item.words for item in score.items]),
        cer=interval([item.characters for item in score.items]),
    )


def score_transcripts(
    name: str, path: Path, normaliser: str = "verbatim", language: str | None = None
) -> SetScore:
    """Score a job's `transcripts.jsonl` (or its folder) as one set.

    Args:
        name: The set.
        path: The file or the job's output folder.
        normaliser: As `load_normaliser` takes it.
        language: Language of all items; by default each item's own.

    Raises:
        DataError: The file holds no references and hypotheses.
    """
    pairs = read_pairs(path).pairs
    return score_set(name, pairs, normaliser=normaliser, language=language)


def table_row(scored: SetScore) -> tuple[str, ...]:
    """Return the cells of a set, in the order of `HEADER`.

    The interval stands beside the language's headline rate: CER where writing has no spaces.
    """
    score = scored.score
    words = score.words
    by_character = score.headline == "cer"
    return (
        scored.name,
        str(len(score.items)),
        str(words.reference),
        percent(scored.wer) if not by_character else _percent(scored.wer.estimate),
        percent(scored.cer) if by_character else _percent(scored.cer.estimate),
        f"{words.insertions} {words.deletions} {words.substitutions}",
        scored.clusters,
    )


def markdown_table(sets: Iterable[SetScore]) -> str:
    """Return a markdown table, one row per set, followed by the names of normaliser and scorer."""
    scored = list(sets)
    alignment = ("---", *("---:" for _ in HEADER[1:-1]), "---")
    lines = [_row(HEADER), _row(alignment), *(_row(table_row(one)) for one in scored)]
    return "\n".join((*lines, "", *_notes(scored))) + "\n"


def to_json(scored: SetScore) -> dict[str, Any]:
    """Return a set's scores as JSON types: rates are fractions, a rate without data is null."""
    score = scored.score
    return {
        "set": scored.name,
        "items": len(score.items),
        "wer": _number(score.wer),
        "wer_interval": _interval(scored.wer),
        "cer": _number(score.cer),
        "cer_interval": _interval(scored.cer),
        "headline": score.headline,
        "words": _counts(score.words),
        "characters": _counts(score.characters),
        "missing_hypotheses": score.missing,
        "non_speech_items": len(score.non_speech),
        "non_speech_inserted_words": score.inserted_in_non_speech,
        "without_reference": score.unscored,
        "normalisers": list(score.normalisers),
        "scorer": score.scorer,
    }


def item_rows(scored: SetScore) -> list[dict[str, Any]]:
    """Return one JSON row per scored item, for resampling or reading elsewhere."""
    return [
        {
            "set": scored.name,
            "id": item.pair.id,
            "speaker": item.pair.speaker,
            "reference": item.reference,
            "hypothesis": None if item.missing else item.hypothesis,
            "words": _counts(item.words),
            "characters": _counts(item.characters),
        }
        for item in scored.score.items
    ]


def percent(interval: Interval) -> str:
    """Write a rate and its interval in per cent: `8.3 [6.1, 10.9]`."""
    if math.isnan(interval.estimate):
        return "-"
    return f"{_percent(interval.estimate)} [{_percent(interval.low)}, {_percent(interval.high)}]"


def _percent(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{100 * rate:.1f}"


def _notes(scored: Sequence[SetScore]) -> list[str]:
    normalisers = sorted({label for one in scored for label in one.score.normalisers})
    scorers = sorted({one.score.scorer for one in scored})
    notes = [f"Normaliser: {', '.join(normalisers)}; scorer: {', '.join(scorers)}."] * bool(scored)
    for one in scored:
        score = one.score
        if score.missing:
            notes.append(
                f"{one.name}: {score.missing} of {score.references} hypotheses are missing and "
                f"count as deletions."
            )
        if score.non_speech:
            notes.append(
                f"{one.name}: {_counted(len(score.non_speech), 'item')} without speech, "
                f"{_counted(score.inserted_in_non_speech, 'word')} inserted there, in no rate."
            )
    return notes


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _number(rate: float) -> float | None:
    return None if math.isnan(rate) else round(rate, 6)


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "low": _number(interval.low),
        "high": _number(interval.high),
        "level": interval.level,
        "unit": interval.unit,
        "clusters": interval.clusters,
        "speakers": interval.speakers,
        "resamples": interval.resamples,
        "seed": interval.seed,
        "method": interval.description,
    }


def _counts(counts: EditCounts) -> dict[str, int]:
    return {
        "reference": counts.reference,
        "hits": counts.hits,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
    }
