"""Restoration scores of many pairs: pairing files, scoring, means with intervals, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechadapt.audio.io import decode_audio, probe
from speechadapt.audio.span import Signal
from speechadapt.core.errors import AudioError, DataError
from speechadapt.metrics.bootstrap import Interval, bootstrap_ratio
from speechadapt.metrics.quality import (
    Scores,
    bandwidth_hz,
    clipped_rate,
    level_db,
    log_spectral_distance,
    si_sdr,
)
from speechadapt.metrics.quality_listener import LISTENERS, at_rate, dnsmos, pesq, stoi

# Scores of a signal against its clean reference, both at one sample rate.
PairScore = Callable[[Signal, Signal, int], Scores]

SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".aac")


@dataclass(frozen=True)
class Pair:
    """A clean recording and what was made of it.

    Args:
        id: The path both share, without its suffix.
        reference: The clean file.
        degraded: The other file; None where there is none.
        before: A third file to compare with; None where there is none.
    """

    id: str
    reference: Path
    degraded: Path | None
    before: Path | None = None


@dataclass(frozen=True)
class Scored:
    """The scores of one pair.

    Args:
        pair: What was scored.
        scores: Of the degraded file, by name; None is a score it does not have.
        before: Those of the third file; empty where there is none.
        error: Why there are none at all; empty where there are.
    """

    pair: Pair
    scores: Scores
    before: Scores
    error: str = ""


def score_signals(
    reference: Signal,
    degraded: Signal,
    sample_rate: int,
    listeners: Sequence[str] = LISTENERS,
    judges: Sequence[PairScore] = (),
) -> dict[str, float | None]:
    """Return every score of a signal against its clean reference.

    Args:
        reference: Clean samples.
        degraded: As many.
        sample_rate: Hz.
        listeners: Of `LISTENERS`.
        judges: Give further scores.

    Raises:
        ShapeError: The lengths differ.
        MissingExtra: A listener's package is not installed.
    """
    found: dict[str, float | None] = {
        "lsd_db": log_spectral_distance(reference, degraded),
        "si_sdr_db": si_sdr(reference, degraded),
    }
    if "pesq" in listeners:
        found |= pesq(reference, degraded, sample_rate)
    if "stoi" in listeners:
        found |= stoi(reference, degraded, sample_rate)
    if "dnsmos" in listeners:
        found |= dnsmos(degraded, sample_rate)
    for judge in judges:
        found |= judge(reference, degraded, sample_rate)
    return found | {
        "bandwidth_hz": bandwidth_hz(degraded, sample_rate),
        "level_db": level_db(degraded),
        "clipped_rate": clipped_rate(degraded),
    }


def find_pairs(reference: Path, degraded: Path, before: Path | None = None) -> list[Pair]:
    """Pair the files of folders by their relative path without suffix, or two files.

    Args:
        reference: Clean files: a folder, read with all below it, or one file.
        degraded: Files of the same names.
        before: Files of the same names to compare with.

    Returns:
        One pair a reference, also where the other side has no such file.

    Raises:
        DataError: A path is not there, one is a file and the other a folder, two files of a folder
            share a name, or no reference has a partner.
    """
    kinds = {path.is_dir() for path in (reference, degraded, before) if path is not None}
    for path in (reference, degraded, before):
        if path is not None and not path.exists():
            raise DataError(f"'{path}' is not there; name a folder or a file.")
    if len(kinds) > 1:
        raise DataError("files and folders cannot be paired; name folders alone or files alone.")
    if not reference.is_dir():
        return [Pair(reference.stem, reference, degraded, before)]
    clean, others = audio_files(reference), audio_files(degraded)
    third = audio_files(before) if before is not None else {}
    if not clean.keys() & others.keys():
        raise DataError(
            f"none of the {len(clean)} files in '{reference}' has the name of one of the "
            f"{len(others)} in '{degraded}'."
        )
    return [Pair(name, path, others.get(name), third.get(name)) for name, path in clean.items()]


def audio_files(folder: Path) -> dict[str, Path]:
    """Return the recordings of a folder and all below it, by relative path without suffix.

    Args:
        folder: Where to look.

    Raises:
        DataError: Two files share a name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise DataError(f"'{folder}' holds '{name}' twice, as {path.suffix} and otherwise.")
            found[name] = path
    return found


def score_pair(
    pair: Pair, listeners: Sequence[str] = LISTENERS, judges: Sequence[PairScore] = ()
) -> Scored:
    """Score one pair at the reference's rate, both cut to the shorter.

    Args:
        pair: The files.
        listeners: Of `LISTENERS`.
        judges: Give further scores.

    Raises:
        MissingExtra: A listener's package is not installed.
    """
    if pair.degraded is None:
        return Scored(pair, {}, {}, "no file of this name")
    try:
        rate = probe(pair.reference).sample_rate
        clean = decode_audio(pair.reference, rate).waveform
        asked = listeners, judges
        scores = _against(clean, rate, pair.degraded, *asked)
        before = {} if pair.before is None else _against(clean, rate, pair.before, *asked)
    except AudioError as error:
        return Scored(pair, {}, {}, f"{error.reason}: {error}")
    return Scored(pair, scores, before)


def _against(
    clean: Signal, rate: int, path: Path, listeners: Sequence[str], judges: Sequence[PairScore]
) -> dict[str, float | None]:
    own = probe(path).sample_rate
    given = at_rate(decode_audio(path, own).waveform, own, rate)
    shared = min(len(clean), len(given))
    scores = score_signals(clean[:shared], given[:shared], rate, listeners, judges)
    return scores | {"length_drift_s": (len(given) - len(clean)) / rate}


def mean_interval(values: Sequence[float | None]) -> tuple[Interval | None, int]:
    """Return the mean of the values there are, with its 95 % interval, and how many are missing.

    Args:
        values: One an item; None is missing.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None, len(values)
    shift = min(0.0, *known)  # the bootstrap takes what is not negative
    moved = bootstrap_ratio([value - shift for value in known], [1.0] * len(known))
    shifted = replace(
        moved,
        estimate=moved.estimate + shift,
        low=moved.low + shift,
        high=moved.high + shift,
    )
    return shifted, len(values) - len(known)


def summary(items: Sequence[Scored]) -> dict[str, Any]:
    """Return means with intervals, of the change too where there is a `before`, as JSON values.

    A file that could not be scored counts as missing in every score.

    Args:
        items: The scored pairs.
    """
    names = list(dict.fromkeys(name for item in items for name in item.scores))
    scores: dict[str, Any] = {}
    for name in names:
        row = {"degraded": _mean([item.scores.get(name) for item in items])}
        if any(item.before for item in items):
            row["before"] = _mean([item.before.get(name) for item in items])
            row["change"] = _mean([_change(item, name) for item in items])
        scores[name] = row
    failed = {item.pair.id: item.error for item in items if item.error}
    return {"items": len(items), "failed": failed, "scores": scores}


def _change(item: Scored, name: str) -> float | None:
    after, before = item.scores.get(name), item.before.get(name)
    return None if after is None or before is None else after - before


def _mean(values: Sequence[float | None]) -> dict[str, float | int | None]:
    interval, missing = mean_interval(values)
    if interval is None:
        return {"mean": None, "low": None, "high": None, "missing": missing}
    return {
        "mean": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "missing": missing,
    }


def markdown_table(found: dict[str, Any]) -> str:
    """Return a summary as a Markdown table.

    Args:
        found: What `summary` gave.
    """
    columns = [key for key in ("before", "degraded", "change") if _has(found, key)]
    lines = [
        "| score | " + " | ".join(columns) + " | missing |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    for name, row in found["scores"].items():
        cells = " | ".join(_cell(row[key]) for key in columns)
        lines.append(f"| {name} | {cells} | {row['degraded']['missing']} |")
    lines += ["", f"Means over {found['items']} files, 95 % bootstrap intervals over files."]
    lines += [f"Not scored: {name}: {why}" for name, why in found["failed"].items()]
    return "\n".join(lines)


def _has(found: dict[str, Any], key: str) -> bool:
    return any(key in row for row in found["scores"].values())


def _cell(values: dict[str, Any]) -> str:
    if values["mean"] is None:
        return "-"
    return f"{values['mean']:.3f} [{values['low']:.3f}, {values['high']:.3f}]"


def item_rows(items: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return one JSON row a pair; a score that is missing is null.

    Args:
        items: The scored pairs.
    """
    return [
        {
            "id": item.pair.id,
            "reference": str(item.pair.reference),
            "degraded": None if item.pair.degraded is None else str(item.pair.degraded),
            "scores": dict(item.scores),
            "before": dict(item.before),
            "error": item.error or None,
        }
        for item in items
    ]
