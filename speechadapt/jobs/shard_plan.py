"""The plan of a job too large for one list: where a manifest is cut into shards, or which tars.

The manifest is read once, as a stream; what is kept of it is one line for each shard, with the
bytes where it begins and ends. A shard is done as a job of its own, so its items are journalled one
by one while it is open; once its outputs are in a tar it is one file and one line. Memory and the
time of a resume depend on the number of shards alone. Recordings that lie in WebDataset tars are
planned tar by tar.

PLAN/
    shards.jsonl    one line for each shard: items, seconds, bytes, checksum of its rows, or its tar
    plan.json       the source, the limits and the sums; written last, so the plan is whole
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechadapt.core.errors import DataError, JobError
from speechadapt.core.files import atomic_write, atomic_write_json, read_json, read_lines
from speechadapt.core.limits import Count, Positive
from speechadapt.data.cuts import cut_row, is_cut
from speechadapt.data.packed import count_rows
from speechadapt.data.shard_tar import split_name

_ENTRIES, _HEAD = "shards.jsonl", "plan.json"
_DIGITS = 6


@dataclass(frozen=True)
class ShardLimits:
    """When a shard is full.

    Args:
        items: It holds so many.
        audio_s: Or so many seconds of audio, by the manifest's `duration`.
    """

    items: Count = 4000
    audio_s: Positive = 36000.0


@dataclass(frozen=True)
class Shard:
    """A stretch of the manifest, or a tar.

    Args:
        number: Counted from 0.
        start: Its first byte in the manifest.
        end: The byte behind its last.
        items: Its rows, or the samples of the tar.
        audio_s: Their seconds, as far as the manifest states them.
        sha256: Checksum of its bytes, hexadecimal; empty for a tar.
        tar: The tar; empty for a stretch of the manifest.
    """

    number: int
    start: int
    end: int
    items: int
    audio_s: float
    sha256: str = ""
    tar: str = ""

    @property
    def name(self) -> str:
        """The shard's number as files carry it."""
        return f"{self.number:0{_DIGITS}d}"


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a manifest, or of a set of tars.

    Args:
        source: The manifest; the folder that all tars have in common.
        items: Rows in all.
        audio_s: Their seconds.
        limits: When a shard was full.
        shards: In the order of the manifest.
    """

    source: Path
    items: int
    audio_s: float
    limits: ShardLimits
    shards: tuple[Shard, ...]


def plan_shards(manifest: Path, folder: Path, limits: ShardLimits) -> ShardPlan:
    """Cut a manifest into shards and write the plan, in memory that does not grow with it.

    Args:
        manifest: JSON lines with `audio_filepath` and, where it is known, `duration` in seconds,
            or cuts of lhotse; not packed, for a shard is a place in it.
        folder: Receives the plan.
        limits: When a shard is full.

    Raises:
        DataError: A line is no row; the message names it. Or the manifest is packed.
        JobError: The folder holds a plan of another manifest or other limits.
    """
    if manifest.suffix.lower() == ".gz":
        raise DataError(f"'{manifest}' is packed; shards are places in a plain file. gunzip -k it.")
    head = {"source": str(manifest.resolve()), "bytes": manifest.stat().st_size}
    return _write_plan(folder, head, limits, _cut(manifest, limits))


def plan_tars(tars: Sequence[Path], folder: Path) -> ShardPlan:
    """Plan tars (WebDataset, or see `data.packed`), each of them a shard, and write the plan.

    Args:
        tars: The tars, in order.
        folder: Receives the plan.

    Raises:
        DataError: There is no tar, or one is damaged.
        JobError: The folder holds a plan of other tars.
    """
    if not tars:
        raise DataError("there is no tar to plan.")
    paths = [path.resolve() for path in tars]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return _write_plan(folder, {"source": str(root)}, ShardLimits(), _count_tars(paths))


def read_shard_plan(folder: Path) -> ShardPlan:
    """Read a plan.

    Raises:
        JobError: There is none, it is not whole, or the manifest has another size than it had.
    """
    try:
        head = read_json(folder / _HEAD)
        shards = tuple(Shard(**row) for _, row in read_lines(folder / _ENTRIES))
        limits = ShardLimits(**head["limits"])
        source, size = Path(head["source"]), head.get("bytes")
        whole = len(shards) == head["shards"]
        sums = head["items"], head["audio_s"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"the plan in '{folder}' cannot be read: {error}.") from error
    if not whole:
        raise JobError(f"the plan in '{folder}' is not whole: {len(shards)} shards are there.")
    if size is not None:
        _check_size(source, size)
    return ShardPlan(source, *sums, limits, shards)


def shard_rows(plan: ShardPlan, shard: Shard) -> list[dict[str, Any]]:
    """Read the rows of a shard; their paths become absolute, as seen from the manifest.

    Raises:
        JobError: The manifest was changed since it was planned.
    """
    with plan.source.open("rb") as handle:
        handle.seek(shard.start)
        data = handle.read(shard.end - shard.start)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise JobError(f"'{plan.source}' was changed in shard {shard.name} since it was planned.")
    folder = plan.source.parent
    rows = [_row(json.loads(line), folder) for line in data.splitlines() if line.strip()]
    for row in rows:
        row["audio_filepath"] = str(folder / row["audio_filepath"])
    return rows


def check_tar(shard: Shard) -> Path:
    """Return a shard's tar.

    Raises:
        JobError: It has another size than it had when it was planned.
    """
    path = Path(shard.tar)
    _check_size(path, shard.end)
    return path


def _write_plan(
    folder: Path, head: Mapping[str, Any], limits: ShardLimits, shards: Iterable[Shard]
) -> ShardPlan:
    head = {**head, "limits": asdict(limits)}
    if (folder / _HEAD).is_file():
        known = read_json(folder / _HEAD)
        if {name: known.get(name) for name in head} != head:
            raise JobError(
                f"'{folder}' holds the plan of '{known.get('source')}' with {known.get('limits')}; "
                "use the same to go on, or another folder."
            )
        return read_shard_plan(folder)
    sums = {"shards": 0, "items": 0, "audio_s": 0.0}

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as handle:
            for shard in shards:
                sums["shards"] += 1
                sums["items"] += shard.items
                sums["audio_s"] += shard.audio_s
                handle.write(json.dumps(asdict(shard)) + "\n")

    atomic_write(folder / _ENTRIES, write)
    atomic_write_json(folder / _HEAD, {**head, **sums})
    return read_shard_plan(folder)


def _count_tars(paths: Sequence[Path]) -> Iterator[Shard]:
    for number, path in enumerate(paths):
        count = count_rows(path)
        try:
            with tarfile.open(path) as tar:
                keys = {split_name(member.name)[0] for member in tar if member.isfile()}
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"the tar '{path}' cannot be read: {error}.") from error
        items = len(keys) if count is None else count
        yield Shard(number, 0, path.stat().st_size, items, 0.0, tar=str(path))


def _check_size(path: Path, size: int) -> None:
    if not path.is_file() or path.stat().st_size != size:
        raise JobError(f"'{path}' is not as it was when it was planned: it had {size} bytes.")


def _cut(manifest: Path, limits: ShardLimits) -> Iterator[Shard]:
    number = start = end = items = 0
    audio_s = 0.0
    digest = hashlib.sha256()
    with manifest.open("rb") as handle:
        for line_number, line in enumerate(handle, 1):
            end += len(line)
            digest.update(line)
            if not line.strip():
                continue
            audio_s += _seconds(manifest, line_number, line)
            items += 1
            if items >= limits.items or audio_s >= limits.audio_s:
                yield Shard(number, start, end, items, round(audio_s, 3), digest.hexdigest())
                number, start, items, audio_s = number + 1, end, 0, 0.0
                digest = hashlib.sha256()
    if items:
        yield Shard(number, start, end, items, round(audio_s, 3), digest.hexdigest())


def _row(found: Any, folder: Path) -> Any:
    return cut_row(found, folder) if is_cut(found) else found


def _seconds(manifest: Path, number: int, line: bytes) -> float:
    try:
        row = _row(json.loads(line), manifest.parent)
        if not row["audio_filepath"]:
            raise ValueError("audio_filepath is empty")
        return float(row.get("duration") or 0.0)
    except DataError as error:
        raise DataError(f"{manifest.name} line {number}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{manifest.name} line {number} is no row with 'audio_filepath': {error!r}."
        ) from error
