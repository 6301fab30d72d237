"""Manifests: the utterances of a corpus or a job as frozen values, JSON lines on disk.

The field names are the ones speech tools share (`audio_filepath, duration, offset, text, lang,
speaker`); everything else a row carries is kept in `extra`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechadapt.core.errors import DataError
from speechadapt.core.files import read_lines, write_lines

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


def read_manifest(path: Path) -> list[Utterance]:
    """Read a JSON-lines manifest.

    Raises:
        DataError: A line is not JSON, lacks `audio_filepath`, or has a field of the wrong kind; the
            message names the line. Up to ten such lines are reported together.
    """
    utterances: list[Utterance] = []
    problems: list[str] = []
    try:
        for number, row in read_lines(path):
            problem = _row_problem(row)
            if problem:
                problems.append(f"{path.name} line {number}: {problem}")
            else:
                utterances.append(_from_row(row))
    except ValueError as error:
        raise DataError(str(error)) from error
    if problems:
        more = f" ... and {len(problems) - 10} more." if len(problems) > 10 else ""
        raise DataError("\n".join(problems[:10]) + more)
    return utterances


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances as JSON lines, whole or not at all."""
    write_lines(path, (utterance.to_row() for utterance in utterances))


def _from_row(row: Mapping[str, Any]) -> Utterance:
    offset = float(row.get("offset") or 0.0)
    path = str(row["audio_filepath"])
    duration = row.get("duration")
    return Utterance(
        audio_filepath=path,
        duration=None if duration is None else float(duration),
        offset=offset,
        text=row.get("text"),
        lang=row.get("lang"),
        speaker=row.get("speaker"),
        id=str(row.get("id") or (f"{path}@{offset:g}" if offset else path)),
        extra={key: value for key, value in row.items() if key not in _FIELDS},
    )


def _row_problem(row: Any) -> str | None:
    if not isinstance(row, dict):
        return f"a row is an object, got {type(row).__name__}."
    if not isinstance(row.get("audio_filepath"), str) or not row["audio_filepath"]:
        return f"'audio_filepath' is missing; found {', '.join(sorted(row)) or 'nothing'}."
    for name in ("duration", "offset"):
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return f"{name} must be seconds, got {value!r}."
        if value is not None and not value >= 0:
            return f"{name} must be 0 or more seconds, got {value!r}."
    for name in ("text", "lang", "speaker"):
        if row.get(name) is not None and not isinstance(row[name], str):
            return f"{name} must be text, got {row[name]!r}."
    return None
