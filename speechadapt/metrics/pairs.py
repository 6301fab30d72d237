"""Reads references and hypotheses from the forms people keep them in and joins them.

    text file     one utterance a line; joined by line number, so both sides need as many lines
    folder        `.txt` files, one utterance each; joined by path without the suffix
    JSON lines    `text` (reference) and `pred_text` (hypothesis), joined by `audio_filepath` and
                  `offset`, by `id`, or by path without the suffix
    one file      JSON lines or a job's output folder that hold both

A reference without a hypothesis stays, as missing: dropping it would flatter the score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from speechadapt.core.errors import DataError
from speechadapt.core.files import read_lines
from speechadapt.metrics.wer import Pair

TRANSCRIPTS = "transcripts.jsonl"
_JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_KINDS = ("audio_filepath", "id", "path", "line")


@dataclass(frozen=True)
class Joined:
    """References with their hypotheses.

    Args:
        pairs: One per reference, in the references' order; `hypothesis` is None where none exists.
        joined_by: What the two sides were joined by.
        extra: Names of hypotheses that no reference asks for; they are not scored.
    """

    pairs: tuple[Pair, ...]
    joined_by: str
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """One text with every name it could be joined by."""

    text: str | None
    where: str
    keys: Mapping[str, str]
    row: Mapping[str, Any] = field(default_factory=dict)


def read_pairs(reference: Path, hypothesis: Path | None = None) -> Joined:
    """Read both sides and join them.

    Args:
        reference: A text file, a folder of `.txt`, or JSON lines with `text`. Without
            `hypothesis`: JSON lines whose rows hold `text` and `pred_text`, or a job's output
            folder with `transcripts.jsonl`.
        hypothesis: A text file, a folder of `.txt` or of a job, or JSON lines with `pred_text`
            (or, where no row has one, `text`).

    Returns:
        The pairs.

    Raises:
        DataError: A file cannot be read, is of another kind, or the sides cannot be joined; the
            message names the file and, where there is one, the line.
    """
    if hypothesis is None:
        return _read_both(reference)
    references = _read_side(reference, _reference_text)
    hypotheses = _read_side(hypothesis, _hypothesis_text(hypothesis))
    kind = _join_kind(references, hypotheses, reference, hypothesis)
    if kind == "line" and len(references) != len(hypotheses):
        raise DataError(
            f"'{reference.name}' has {len(references)} lines and '{hypothesis.name}' has "
            f"{len(hypotheses)}. Text files are joined by line, so a missing hypothesis needs an "
            f"empty line; JSON lines are joined by name."
        )
    by_key = {entry.keys[kind]: entry for entry in hypotheses}
    pairs = tuple(
        _pair(entry, by_key.get(entry.keys[kind]), entry.keys[kind]) for entry in references
    )
    asked = {entry.keys[kind] for entry in references}
    return Joined(pairs, kind, tuple(key for key in by_key if key not in asked))


def _read_both(path: Path) -> Joined:
    source = path / TRANSCRIPTS if path.is_dir() else path
    if not source.is_file() or source.suffix not in _JSON_SUFFIXES:
        raise DataError(
            f"'{path}' alone must be JSON lines with 'text' and 'pred_text', or a folder with "
            f"{TRANSCRIPTS}. Otherwise name the references and the hypotheses: score REF HYP."
        )
    rows = list(_rows(source))
    if rows and not any("pred_text" in row for _, row in rows):
        raise DataError(
            f"no row of '{source.name}' has 'pred_text'; found "
            f"{', '.join(sorted(rows[0][1]))}. Name the hypotheses too: score REF HYP."
        )
    pairs = []
    for where, row in rows:
        entry = _Entry(_text(row, "text", where), where, _keys(row), row)
        heard = _Entry(_text(row, "pred_text", where), where, {}, row)
        pairs.append(_pair(entry, heard, _row_name(row, where)))
    return Joined(tuple(pairs), "row")


def _read_side(path: Path, text_of: Callable[[Mapping[str, Any], str], str | None]) -> list[_Entry]:
    if path.is_dir():
        if (path / TRANSCRIPTS).is_file():
            return _read_side(path / TRANSCRIPTS, text_of)
        return list(_read_folder(path))
    if not path.is_file():
        raise DataError(f"'{path}' is neither a file nor a folder.")
    if path.suffix in _JSON_SUFFIXES:
        return [_Entry(text_of(row, where), where, _keys(row), row) for where, row in _rows(path)]
    return [
        _Entry(line, f"{path.name} line {number}", {"line": str(number)})
        for number, line in enumerate(_read_text(path), 1)
    ]


def _read_folder(folder: Path) -> Iterator[_Entry]:
    paths = sorted(path for path in folder.rglob("*.txt") if path.is_file())
    if not paths:
        raise DataError(f"folder '{folder}' holds no .txt file and no {TRANSCRIPTS}.")
    for path in paths:
        name = path.relative_to(folder).as_posix()
        yield _Entry(" ".join(_read_text(path)), name, {"path": _stem(name)})


def _read_text(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file; other line breaks than newlines do not count."""
    data = path.read_bytes()
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r"))
        except UnicodeDecodeError as error:
            raise DataError(f"{path.name} line {number} is not UTF-8: {error.reason}.") from error
    return texts


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        for number, row in read_lines(path):
            where = f"{path.name} line {number}"
            if not isinstance(row, dict):
                raise DataError(f"{where}: a row is an object, got {type(row).__name__}.")
            yield where, row
    except ValueError as error:
        raise DataError(str(error)) from error


def _reference_text(row: Mapping[str, Any], where: str) -> str | None:
    if "text" not in row:
        raise DataError(
            f"{where}: 'text' is missing; found {', '.join(sorted(row)) or 'nothing'}. "
            f"A row nobody transcribed says null."
        )
    return _text(row, "text", where)


def _hypothesis_text(path: Path) -> Callable[[Mapping[str, Any], str], str | None]:
    source = path / TRANSCRIPTS if path.is_dir() else path
    name = "pred_text"
    if source.suffix in _JSON_SUFFIXES and source.is_file():
        rows = [row for _, row in _rows(source)]
        if rows and not any("pred_text" in row for row in rows):
            name = "text"
    return lambda row, where: _text(row, name, where)


def _text(row: Mapping[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: {name} must be text or null, got {value!r}.")
    return value


def _keys(row: Mapping[str, Any]) -> dict[str, str]:
    keys = {}
    path = row.get("audio_filepath")
    offset = row.get("offset") or 0
    if isinstance(path, str) and path:
        keys["audio_filepath"] = f"{path}@{offset:g}" if offset else path
        if not offset:
            keys["path"] = _stem(path)
    if row.get("id") not in (None, ""):
        keys["id"] = str(row["id"])
    return keys


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _row_name(row: Mapping[str, Any], where: str) -> str:
    keys = _keys(row)
    return keys.get("id") or keys.get("audio_filepath") or where


def _join_kind(
    references: list[_Entry], hypotheses: list[_Entry], reference: Path, hypothesis: Path
) -> str:
    """Choose the first kind of name that every text of both sides has and that finds a match."""
    shared = [
        kind for kind in _KINDS if all(kind in entry.keys for entry in (*references, *hypotheses))
    ]
    repeats: list[str] = []
    for kind in shared:
        repeated = _repeated(references, kind) or _repeated(hypotheses, kind)
        if repeated:
            repeats.append(repeated)
            continue
        names = {entry.keys[kind] for entry in references}
        if names & {entry.keys[kind] for entry in hypotheses} or not hypotheses:
            return kind
    if repeats:
        raise DataError(repeats[0])
    tried = f"by {', '.join(shared)}" if shared else "as they are of different kinds"
    raise DataError(
        f"no text of '{hypothesis.name}' belongs to one of '{reference.name}' {tried}; the first "
        f"are {_first(references)} and {_first(hypotheses)}."
    )


def _repeated(entries: list[_Entry], kind: str) -> str:
    seen: dict[str, str] = {}
    for entry in entries:
        earlier = seen.setdefault(entry.keys[kind], entry.where)
        if earlier != entry.where:
            return f"{entry.where}: {kind} {entry.keys[kind]!r} was already given in {earlier}."
    return ""


def _first(entries: list[_Entry]) -> str:
    if not entries:
        return "nothing"
    return repr(next(iter(entries[0].keys.values()), entries[0].where))


def _pair(reference: _Entry, hypothesis: _Entry | None, name: str) -> Pair:
    row = reference.row
    speaker, language = row.get("speaker"), row.get("lang")
    return Pair(
        id=name,
        reference=reference.text,
        hypothesis=None if hypothesis is None else hypothesis.text,
        speaker=None if speaker is None else str(speaker),
        language=None if language is None else str(language),
        fields=row,
    )
