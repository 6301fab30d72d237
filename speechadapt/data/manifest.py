"""Manifests: the utterances of a corpus or a job as frozen values, JSON lines on disk.

The field names are the ones speech tools share (`audio_filepath, duration, offset, text, lang,
speaker`); everything else a row carries is kept in `extra`. Manifests of NeMo are read as they are,
lines that are cuts of lhotse become rows (see `data.cuts`). Files may be packed with gzip.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechadapt.core.errors import DataError
from speechadapt.core.files import read_lines, write_lines
from speechadapt.data.cuts import cut_row, is_cut

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
_HALF = (
    " It is lhotse's recordings or supervisions alone; cuts hold both: "
    "lhotse cut simple -r RECORDINGS -s SUPERVISIONS cuts.jsonl.gz."
)
_FIELDS = ("audio_filepath", "duration", "offset", "text", "lang", "speaker", "id")


@dataclass(frozen=True)
class Utterance:
    """A stretch of one recording, with what is known about it.

    Args:
        audio_filepath: The path as the manifest gives it (relative to the manifest's folder or
            absolute).
        duration: Seconds; None means up to the end of the recording.
        offset: Seconds from the start of the recording.
        text: The reference transcript; None where there is none.
        lang: BCP 47 language code.
        speaker: Anything that names the speaker.
        id: A name that is unique in the manifest; the path and offset where none was given.
        extra: The row's other fields, untouched.
    """

    audio_filepath: str
    duration: float | None = None
    offset: float = 0.0
    text: str | None = None
    lang: str | None = None
    speaker: str | None = None
    id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return the JSON row; fields that say nothing are left out."""
        row: dict[str, Any] = {"audio_filepath": self.audio_filepath}
        for name in ("id", "duration", "offset", "text", "lang", "speaker"):
            value = getattr(self, name)
            if value not in (None, "") and not (name == "offset" and value == 0.0):
                row[name] = value
        return row | dict(self.extra)


def is_manifest(name: str) -> bool:
    """Say whether a file is a manifest by its name."""
    return name.lower().endswith(SUFFIXES)


def manifest_stem(path: Path) -> str:
    """Return a manifest's name without what says that it is one."""
    ending = next((one for one in SUFFIXES if path.name.lower().endswith(one)), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def read_manifest(path: Path) -> list[Utterance]:
    """Read a manifest: rows of this package or of NeMo, or cuts of lhotse, one a line.

    Raises:
        DataError: A line is not JSON, lacks `audio_filepath`, or has a field of the wrong kind; the
            message names the line. Up to ten such lines are reported together.
    """
    utterances: list[Utterance] = []
    problems: list[str] = []
    for number, found in numbered_rows(path):
        try:
            utterances.append(_from_row(plain_row(found, path.parent)))
        except DataError as error:
            problems.append(f"{path.name} line {number}: {error}")
    if problems:
        more = f" ... and {len(problems) - 10} more." if len(problems) > 10 else ""
        raise DataError("\n".join(problems[:10]) + more)
    return utterances


def numbered_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield `(line number, value)` of a manifest, packed or not.

    Raises:
        DataError: A line is not JSON, the whole is one array, or a file named `.gz` is no gzip.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as handle:
            array = handle.read(4096).lstrip()[:1] == b"["
        if array:
            raise ValueError(
                f"{path.name} is one JSON array; a manifest has one object a line. "
                f"jq -c '.[]' {path.name} > {manifest_stem(path)}.jsonl makes it one."
            )
        yield from _packed_lines(path) if packed else read_lines(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} is damaged: {error}. Copy it again.") from error
    except ValueError as error:
        raise DataError(str(error)) from error


def plain_row(found: Any, folder: Path) -> dict[str, Any]:
    """Return a line's row: itself or, where it is a cut, what the cut says.

    Args:
        found: The value of the line.
        folder: The folder of the manifest.

    Raises:
        DataError: It is no row, or a field is wrong; the message names the field.
    """
    if is_cut(found):
        try:
            found = cut_row(found, folder)
        except DataError as error:
            raise DataError(f"cut {found.get('id')!r}: {error}") from error
    problem = _row_problem(found)
    if problem:
        raise DataError(problem)
    row: dict[str, Any] = found
    return row


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances as JSON lines, whole or not at all."""
    write_lines(path, (utterance.to_row() for utterance in utterances))


def _from_row(row: Mapping[str, Any]) -> Utterance:
    offset = float(row.get("offset") or 0.0)
    path = str(row["audio_filepath"])
    duration = row.get("duration")
    extra = {key: value for key, value in row.items() if key not in _FIELDS}
    text, spoken = row.get("text"), row.get("source_lang")
    if text is not None and row.get("target_lang", spoken) != spoken:
        text, extra["translation"] = None, text  # NeMo's rows for translation: no transcript
    return Utterance(
        audio_filepath=path,
        duration=None if duration is None else float(duration),
        offset=offset,
        text=text,
        lang=row.get("lang") or spoken,
        speaker=None if row.get("speaker") is None else str(row["speaker"]),
        id=str(row.get("id") or (f"{path}@{offset:g}" if offset else path)),
        extra=extra,
    )


def _row_problem(row: Any) -> str | None:
    if not isinstance(row, dict):
        return f"a row is an object, got {type(row).__name__}."
    audio = row.get("audio_filepath")
    if not audio:
        found = ", ".join(sorted(map(str, row))) or "nothing"
        halves = {"sources", "sampling_rate"} <= row.keys() or "recording_id" in row
        return f"'audio_filepath' is missing; found {found}.{_HALF if halves else ''}"
    if not isinstance(audio, str):
        return f"audio_filepath must be one path, got {audio!r}."
    for name in ("duration", "offset"):
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return f"{name} must be seconds, got {value!r}."
        if value is not None and not value >= 0:
            return f"{name} must be 0 or more seconds, got {value!r}."
    for name in ("text", "lang", "source_lang"):
        if row.get(name) is not None and not isinstance(row[name], str):
            return f"{name} must be text, got {row[name]!r}."
    speaker = row.get("speaker")  # a number in many manifests of NeMo
    if speaker is not None and not isinstance(speaker, str | int):
        return f"speaker must be text or a number, got {speaker!r}."
    return None


def _packed_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    message = f"{path.name} line {number} is not JSON: {error.msg}."
                    raise ValueError(message) from error
