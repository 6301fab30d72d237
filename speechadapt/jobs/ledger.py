"""The ledger of a job: append-only journals, one per worker, and what they say about each item.

A line is appended after an item's outputs are in place, so an item with a line is done. Lines are
never changed; the last line of an item counts. A line torn by a crash is passed over and the item
is done again. The ledger in memory keeps one small entry per item and the place of its line.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from speechadapt.core.errors import JobError

Status = Literal["ok", "flagged", "partial", "failed", "skipped"]
STATUSES: tuple[Status, ...] = ("ok", "flagged", "partial", "failed", "skipped")
REASONS = (
    "UNREADABLE",
    "NO_AUDIO",
    "EMPTY",
    "TOO_SHORT",
    "PARTIAL",
    "NONFINITE",
    "OOM",
    "TIMEOUT",
    "MODEL",
    "WRITE",
)


@dataclass(frozen=True)
class Record:
    """What became of one item, as one journal line.

    Args:
        id: The item's id in the plan.
        key: The plan's content key of the source (size and time of change).
        status: See `STATUSES`.
        reason: See `REASONS`; None where nothing is wrong.
        message: What was found, for a person; empty where nothing is wrong.
        flags: Reasons for doubt about the text.
        attempts: How often the item was tried, this time included.
        audio_s: Seconds of audio that were decoded.
        decode_s: Seconds spent reading and decoding.
        model_s: Seconds of the model, this item's share of its batch by audio.
        speech_s: Seconds of speech by the voice activity detector; None where it did not run.
        covered_s: Seconds of that speech that the text covers.
        outputs: Files written, relative to the output folder.
        row: The item's row among the job's rows (`transcripts.jsonl`).
    """

    id: str
    key: str
    status: Status
    reason: str | None = None
    message: str = ""
    flags: tuple[str, ...] = ()
    attempts: int = 1
    audio_s: float = 0.0
    decode_s: float = 0.0
    model_s: float = 0.0
    speech_s: float | None = None
    covered_s: float | None = None
    outputs: tuple[str, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """What the ledger keeps in memory about one item."""

    key: str
    status: Status
    reason: str | None
    attempts: int
    audio_s: float
    journal: int
    offset: int


class Journal:
    """One worker's append-only file.

    Args:
        path: The file; made where it is missing. A torn last line of an earlier run is closed off.
        told: Told the path once lines are durable, and with True once the file is closed.
    """

    def __init__(self, path: Path, told: Callable[[Path, bool], None] | None = None) -> None:
        self._told = told
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")

    def append(self, records: Sequence[Record]) -> None:
        """Append records and make them durable before returning.

        Raises:
            JobError: The disk is full or gone.
        """
        data = b"".join(_to_line(record) for record in records)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise JobError(f"the journal '{self._path}' cannot be written: {error}.") from error
        if self._told is not None:
            self._told(self._path, False)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        if self._told is not None:
            self._told(self._path, True)


class Ledger:
    """All journals of a job, read once.

    Args:
        folder: The folder of the journals; it may be missing.

    Attributes:
        entries: What counts for each item, by id.
        lines: Lines read.
        torn: Lines that are no records.
        repeated: How many lines too many an item has for one content and attempt, by id.
    """

    def __init__(self, folder: Path) -> None:
        self.journals = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
        self.entries: dict[str, Entry] = {}
        self.torn = 0
        self.repeated: Counter[str] = Counter()
        self.lines = 0
        for number, path in enumerate(self.journals):
            for offset, row in _read_journal(path):
                if row is None:
                    self.torn += 1
                else:
                    self.lines += 1
                    self._note(number, offset, row)

    def _note(self, number: int, offset: int, row: Mapping[str, Any]) -> None:
        entry = Entry(
            key=row["key"],
            status=row["status"],
            reason=row.get("reason"),
            attempts=row.get("attempts", 1),
            audio_s=row.get("audio_s", 0.0),
            journal=number,
            offset=offset,
        )
        known = self.entries.get(row["id"])
        if known is not None and (known.key, known.attempts) == (entry.key, entry.attempts):
            self.repeated[row["id"]] += 1
        if known is None or known.journal == number or entry.attempts >= known.attempts:
            self.entries[row["id"]] = entry

    def records(self, ids: Iterable[str]) -> Iterator[Record | None]:
        """Read the records of `ids`, in that order; None for an item that has none."""
        handles = [path.open("rb") for path in self.journals]
        try:
            for identifier in ids:
                entry = self.entries.get(identifier)
                if entry is None:
                    yield None
                    continue
                handle = handles[entry.journal]
                handle.seek(entry.offset)
                yield _from_row(_parse(handle.readline()) or {})
        finally:
            for handle in handles:
                handle.close()


def _to_line(record: Record) -> bytes:
    text = json.dumps(asdict(record), ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogateescape")


def _from_row(row: Mapping[str, Any]) -> Record:
    values = dict(row)
    values["flags"] = tuple(values.get("flags", ()))
    values["outputs"] = tuple(values.get("outputs", ()))
    return Record(**values)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    if not isinstance(row, dict) or not {"id", "key", "status"} <= row.keys():
        return None
    return row


def _read_journal(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    offset = 0
    with path.open("rb") as handle:
        for line in handle:
            if line.strip():
                yield offset, _parse(line)
            offset += len(line)
