"""One's own recordings for training: a JSON-lines manifest with transcripts, wherever the audio is.

Rows are those of `data.manifest`; a row may name its part in a field `split` (`train`, `dev` or
`test`). Audio of any format, whole or by offset and duration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechadapt.audio.io import decode_audio, probe
from speechadapt.core.errors import DataError, near_misses
from speechadapt.data.manifest import Utterance, manifest_stem, read_manifest
from speechadapt.data.packed import is_packed, lay_out_first
from speechadapt.data.split import hold_out, seconds_of

SPLITS = ("train", "dev", "test")
_SPELLINGS = {"valid": "dev", "validation": "dev", "val": "dev", "eval": "test"}


def corpus_of(path: Path) -> str:
    """Return the name that a manifest's rows have as a corpus."""
    return manifest_stem(path)


def load_own(path: Path) -> list[Utterance]:
    """Read a manifest.

    Args:
        path: The manifest.

    Returns:
        Rows in its order, ids made unique, audio by absolute path; `extra` holds `corpus` (the
        row's `task` where it names one, else the manifest's name) and, where the row names one,
        `split`.

    Raises:
        DataError: The manifest cannot be read or is malformed, or a row names an unknown split.
    """
    if is_packed(path):
        raise DataError(lay_out_first(path))
    try:
        rows = read_manifest(path)
    except OSError as error:
        raise DataError(f"manifest '{path}' cannot be read: {error.strerror}.") from error
    folder = path.resolve().parent
    return [_placed(row, folder, corpus_of(path)) for row in with_unique_ids(rows)]


def with_unique_ids(rows: Iterable[Utterance]) -> list[Utterance]:
    """Return rows whose ids differ: a repeated id gets a number."""
    seen: Counter[str] = Counter()
    unique = []
    for row in rows:
        seen[row.id] += 1
        count = seen[row.id]
        unique.append(replace(row, id=f"{row.id}#{count}") if count > 1 else row)
    return unique


def own_rows(path: Path, split: str, held_out: float = 0.0) -> list[Utterance]:
    """Return the rows of a manifest for training or for dev, which never overlap.

    Args:
        path: The manifest.
        split: `train` or `dev`.
        held_out: Share of the recordings that serves as `dev` where no row names a split.

    Raises:
        DataError: The manifest cannot be read, or it has no such rows.
        AudioError: A row states no duration and its recording cannot be read either.
    """
    rows = load_own(path)
    problem = split_problem(path, rows, held_out)
    if problem:
        raise DataError(problem)
    if any("split" in row.extra for row in rows):
        return _measured(row for row in rows if row.extra.get("split") == split)
    measured = _measured(rows)
    wanted = held_out * seconds_of(measured)
    parts = hold_out(measured, wanted, 1.5 * wanted)
    return list(parts.held if split == "dev" else parts.kept)


def split_problem(path: Path, rows: Sequence[Utterance], held_out: float) -> str:
    """Say why rows cannot be divided into train and dev; empty where they can.

    Args:
        path: The manifest, for its name.
        rows: Its rows.
        held_out: Share that is held out where no row names a split.
    """
    named = Counter(row.extra.get("split") for row in rows)
    if set(named) <= {None}:
        if len(rows) < 2:
            return (
                f"data.manifest '{path}' holds {len(rows)} rows; training needs some, dev others."
            )
        if not 0 < held_out < 1:
            return (
                f"no row of data.manifest '{path}' names its split (train, dev). "
                "Give rows one, or set data.held_out=0.1 to hold some out."
            )
        return ""
    missing = [split for split in ("train", "dev") if not named[split]]
    if named[None]:
        return f"{named[None]} of the {len(rows)} rows of '{path}' name no split, the others do."
    return f"data.manifest '{path}' has no {' and no '.join(missing)} rows." if missing else ""


def read_own(row: Utterance, sample_rate: int) -> tuple[NDArray[np.float32], int]:
    """Read a row's samples.

    Args:
        row: As `load_own` gives it.
        sample_rate: Wanted, in Hz.

    Returns:
        Mono samples of full scale 1.0, and `sample_rate`.

    Raises:
        AudioError: The recording cannot be used.
    """
    decoded = decode_audio(
        Path(row.audio_filepath), sample_rate, offset_s=row.offset, duration_s=row.duration
    )
    return np.ascontiguousarray(decoded.waveform, dtype=np.float32), sample_rate


def _placed(row: Utterance, folder: Path, corpus: str) -> Utterance:
    extra = {**row.extra, "corpus": row.extra.get("task") or corpus}
    if extra.get("split") is None:
        extra.pop("split", None)
    else:
        name = str(extra["split"]).lower()
        extra["split"] = _SPELLINGS.get(name, name)
        if extra["split"] not in SPLITS:
            raise DataError(f"'{row.id}' names the split '{name}'.{near_misses(name, SPLITS)}")
    audio = folder / Path(row.audio_filepath).expanduser()
    return replace(row, audio_filepath=str(audio), extra=extra)


def _measured(rows: Iterable[Utterance]) -> list[Utterance]:
    return [row if row.duration else replace(row, duration=_duration(row)) for row in rows]


def _duration(row: Utterance) -> float:
    found = probe(Path(row.audio_filepath))
    seconds = found.header_s if found.estimate_s is None else found.estimate_s
    if seconds is None:
        raise DataError(
            f"'{row.id}' states no duration, nor does its recording. Give the row a duration."
        )
    return max(0.0, seconds - row.offset)
