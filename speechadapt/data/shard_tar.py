"""Shards as WebDataset tars: samples whose files share a name up to its first dot.

A shard appears whole or not at all, and beside it `<shard>.done`, a JSON with its counts and
checksum; a reader that finds no such file, or another size, is told so. The same samples give the
same bytes: members carry no time and no owner.

Source: the WebDataset format (https://github.com/webdataset/webdataset).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from speechadapt.core.errors import DataError
from speechadapt.core.files import atomic_write, atomic_write_json, hash_file, read_json

DONE = ".done"


@dataclass(frozen=True)
class Sample:
    """The files of one item.

    Args:
        key: Its name in the shard; folders may stand in it, a dot in its last part may not.
        files: Contents by suffix, without the dot (`json`, `flac`, `seg.json`).
    """

    key: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class ShardFacts:
    """What `<shard>.done` says.

    Args:
        samples: How many there are.
        files: Their files by suffix.
        bytes: Size of the tar.
        sha256: Its checksum, hexadecimal.
        extra: Whatever else the writer noted, JSON types.
    """

    samples: int
    files: Mapping[str, int]
    bytes: int
    sha256: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON types."""
        return {
            "samples": self.samples,
            "files": dict(sorted(self.files.items())),
            "bytes": self.bytes,
            "sha256": self.sha256,
            **self.extra,
        }


def write_shard(
    path: Path, samples: Iterable[Sample], extra: Mapping[str, Any] | None = None
) -> ShardFacts:
    """Write a shard, then say that it is done.

    Args:
        path: The tar.
        samples: Its content, in the order of the tar.
        extra: More to note in `<shard>.done`.

    Raises:
        DataError: A key has a dot in its last part or comes twice, or a sample has no file.
    """
    counts: dict[str, int] = {}
    keys: set[str] = set()

    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
            for sample in samples:
                _check_key(path, sample, keys)
                keys.add(sample.key)
                for suffix, content in sample.files.items():
                    counts[suffix] = counts.get(suffix, 0) + 1
                    member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))

    done_path(path).unlink(missing_ok=True)
    atomic_write(path, write)
    facts = ShardFacts(len(keys), counts, path.stat().st_size, hash_file(path), dict(extra or {}))
    atomic_write_json(done_path(path), facts.to_json())
    return facts


def done_path(path: Path) -> Path:
    """Return where a shard's facts stand."""
    return path.with_name(path.name + DONE)


def read_facts(path: Path) -> ShardFacts:
    """Return what `<shard>.done` says.

    Raises:
        DataError: It is missing or is not what `write_shard` writes.
    """
    try:
        row = dict(read_json(done_path(path)))
        known = {name: row.pop(name) for name in ("samples", "files", "bytes", "sha256")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{done_path(path)}' cannot be read: {error}.") from error
    return ShardFacts(**known, extra=row)


def read_shard(path: Path) -> Iterator[Sample]:
    """Yield the samples of a shard, one in memory at a time.

    Any WebDataset tar will do, with or without `<shard>.done`.

    Raises:
        DataError: The tar is damaged or stops early.
    """
    try:
        with tarfile.open(path, "r|*") as tar:
            key, files = "", dict[str, bytes]()
            for member in tar:
                if not member.isfile():
                    continue
                name, suffix = split_name(member.name)
                if name != key and files:
                    yield Sample(key, files)
                    files = {}
                key = name
                content = tar.extractfile(member)
                data = b"" if content is None else content.read()
                if len(data) != member.size:
                    raise tarfile.ReadError(f"{member.name} stops early")
                files[suffix] = data
            if files:
                yield Sample(key, files)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"the shard '{path}' cannot be read: {error}.") from error


def check_shard(path: Path) -> ShardFacts:
    """Read a shard again and compare it with `<shard>.done`.

    Raises:
        DataError: They differ; the message says in what.
    """
    facts = read_facts(path)
    if not path.is_file():
        raise DataError(f"the shard '{path}' is missing though '{path.name}{DONE}' is there.")
    size = path.stat().st_size
    if size != facts.bytes:
        raise DataError(f"the shard '{path}' has {size} bytes, '{DONE}' says {facts.bytes}.")
    if hash_file(path) != facts.sha256:
        raise DataError(f"the shard '{path}' does not have the checksum that '{DONE}' says.")
    samples = sum(1 for _ in read_shard(path))
    if samples != facts.samples:
        raise DataError(f"the shard '{path}' holds {samples} samples, '{DONE}' {facts.samples}.")
    return facts


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into the sample's key and the suffix: at the first dot of its file."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    folder = "" if str(path.parent) == "." else f"{path.parent}/"
    return folder + stem, suffix


def _check_key(path: Path, sample: Sample, keys: set[str]) -> None:
    if split_name(sample.key)[1] or not PurePosixPath(sample.key).name:
        raise DataError(f"'{sample.key}' cannot be a key in '{path.name}': it has a dot.")
    if sample.key in keys:
        raise DataError(f"'{sample.key}' comes twice in '{path.name}'.")
    if not sample.files:
        raise DataError(f"'{sample.key}' has no file to put into '{path.name}'.")
