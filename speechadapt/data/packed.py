"""Corpora whose recordings lie in tars beside a manifest, laid out as files with a manifest.

Two layouts are known. lhotse's Shar folder holds `cuts.NNNNNN.jsonl.gz` and `recording.NNNNNN.tar`,
read by lhotse itself. NeMo's tarred corpus holds `tarred_audio_manifest.json`, whose rows name a
`shard_id`, and `audio_<shard_id>.tar`. Laid out, both are recordings and a `manifest.jsonl`, in the
order of the corpus.

Source: https://lhotse.readthedocs.io/en/latest/shar.html,
    https://github.com/NVIDIA/NeMo (scripts/speech_recognition/convert_to_tarred_audio_dataset.py)
"""

from __future__ import annotations

import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from speechadapt.core.errors import DataError, MissingExtra
from speechadapt.core.files import atomic_write, atomic_write_json, read_json, write_lines
from speechadapt.data.cuts import cut_row
from speechadapt.data.manifest import is_manifest, numbered_rows, plain_row

MANIFEST = "manifest.jsonl"
_SOURCE = "source.json"
_NEMO = "tarred_audio_manifest.json"
_AUDIO = "audio"
_PART = re.compile(r"-sub\d+$")  # NeMo names the further parts of one recording so
_MAGIC = {b"fLaC": ".flac", b"RIFF": ".wav", b"OggS": ".ogg"}
_OF_LHOTSE = ("shar_epoch", "shard_origin", "dataloading_info")


def is_packed(path: Path) -> bool:
    """Say whether a path is a Shar folder, or a tarred corpus of NeMo or its manifest."""
    if path.is_dir():
        return bool(_cuts(path)) or (path / _NEMO).is_file()
    return is_manifest(path.name) and path.is_file() and _is_tarred(path)


def lay_out_first(path: str | Path) -> str:
    """Say what to do with a packed corpus where there is no folder to lay it out in."""
    return (
        f"the recordings of '{path}' lie in tars. Lay them out first: "
        f"speechadapt shards unpack {path} FOLDER; then give FOLDER/{MANIFEST}."
    )


def unpack(path: Path, folder: Path) -> Path:
    """Lay out a packed corpus; what is laid out already, from the same files, is kept.

    A recording's time is its checksum, so that a job on it goes on however often it is written, and
    begins anew where it is another one.

    Args:
        path: What `is_packed` takes.
        folder: Receives `audio/` and `manifest.jsonl`.

    Returns:
        The manifest.

    Raises:
        DataError: A tar is missing, damaged or lacks a recording, or a row is malformed.
        MissingExtra: It is a Shar folder, and lhotse is not installed.
    """
    shar = path.is_dir() and bool(_cuts(path))
    listing = path / _NEMO if path.is_dir() and not shar else path
    files = _cuts(path) + _recordings(path) if shar else [listing, *_tars(listing)]
    source = {
        "source": str(path.resolve()),
        "files": [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in files],
    }
    manifest = folder / MANIFEST
    if manifest.is_file() and _known(folder / _SOURCE) == source:
        return manifest
    with _explained(path):
        if shar:
            rows = list(_from_shar(_cuts(path), _recordings(path), folder))
        else:
            rows = _from_nemo(listing, _rows_of(listing), folder)
    write_lines(manifest, rows)
    atomic_write_json(folder / _SOURCE, source)
    return manifest


def packed_tars(folder: Path) -> list[Path]:
    """Return the tars of recordings below a folder, without a Shar folder's other fields."""
    tars = sorted(folder.rglob("*.tar"))
    shar = {place: bool(_cuts(place)) for place in {tar.parent for tar in tars}}
    return [tar for tar in tars if not shar[tar.parent] or tar.name.startswith("recording.")]


def count_rows(tar: Path) -> int | None:
    """Count the rows about one tar; None where it belongs to no packed corpus.

    Raises:
        DataError: A row is malformed.
    """
    cuts = _cuts_of(tar)
    if cuts is not None:
        return sum(1 for _ in numbered_rows(cuts))
    known = _listing_of(tar)
    return None if known is None else len(known[1])


def unpack_tar(tar: Path, folder: Path) -> list[dict[str, Any]] | None:
    """Lay out the recordings of one tar; None where it belongs to no packed corpus.

    Args:
        tar: `recording.NNNNNN.tar` beside its cuts, or `audio_N.tar` with its rows.
        folder: Receives `audio/`.

    Returns:
        The rows, audio by absolute path.

    Raises:
        DataError: The tar is damaged or lacks a recording, or a row is malformed.
        MissingExtra: It is of a Shar folder, and lhotse is not installed.
    """
    cuts = _cuts_of(tar)
    known = _listing_of(tar) if cuts is None else None
    with _explained(tar):
        if cuts is not None:
            rows = list(_from_shar([cuts], [tar], folder))
        elif known is not None:
            rows = _from_nemo(*known, folder)
        else:
            return None
    whole = folder.resolve()
    return [{**row, "audio_filepath": str(whole / row["audio_filepath"])} for row in rows]


def _from_shar(cuts: list[Path], recordings: list[Path], folder: Path) -> Iterator[dict[str, Any]]:
    source = recordings[0].parent
    try:
        from lhotse import CutSet
    except ImportError as error:
        raise MissingExtra("lhotse", f"the Shar folder '{source}'") from error
    if [_number(one) for one in cuts] != [_number(one) for one in recordings]:
        raise DataError(
            f"'{source}' has {len(cuts)} files of cuts and {len(recordings)} of recordings; "
            "each cuts.NNNNNN.jsonl.gz needs its recording.NNNNNN.tar."
        )
    taken: set[str] = set()
    read = 0
    try:
        for cut in CutSet.from_shar(fields={"cuts": cuts, "recording": recordings}):
            yield _shar_row(cut, folder, taken)
            read += 1
    except (AssertionError, ValueError) as error:
        raise DataError(f"'{source}' is no whole Shar folder: {error}") from error
    rows = sum(1 for one in cuts for _ in numbered_rows(one))
    if read < rows:  # lhotse stops at the end of the shorter one
        raise DataError(f"'{source}' has {rows} cuts, but recordings of {read}. Copy it again.")


def _shar_row(cut: Any, folder: Path, taken: set[str]) -> dict[str, Any]:
    said = cut.to_dict()
    sources = (said.get("recording") or {}).get("sources") or []
    for number, one in enumerate(sources):
        data = one.get("source")
        if one.get("type") == "memory" and isinstance(data, bytes):
            name = _free(f"{cut.id}-{number}" if number else cut.id, _suffix(data), taken)
            _write(folder / name, data)
            sources[number] = {**one, "type": "file", "source": name}
        elif one.get("type") == "shar":
            raise DataError(f"cut {cut.id!r} has no recording in its tar.")
    said["custom"] = {
        key: value for key, value in (said.get("custom") or {}).items() if key not in _OF_LHOTSE
    }
    try:
        row = cut_row(said, folder)
    except DataError as error:
        raise DataError(f"cut {cut.id!r}: {error}") from error
    return {key: value for key, value in row.items() if value is not None}


def _rows_of(listing: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, found in numbered_rows(listing):
        try:
            rows.append(plain_row(found, listing.parent))
        except DataError as error:
            raise DataError(f"{listing.name} line {number}: {error}") from error
    return rows


def _from_nemo(listing: Path, rows: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    wanted: dict[Path, set[str]] = {}
    for row in rows:
        wanted.setdefault(_tar_of(listing, row), set()).add(row["audio_filepath"])
    places = {tar: _extract(tar, names, folder) for tar, names in wanted.items()}
    return [
        {
            "id": row["audio_filepath"],
            **row,
            "audio_filepath": places[_tar_of(listing, row)][row["audio_filepath"]],
        }
        for row in rows
    ]


def _extract(tar: Path, names: set[str], folder: Path) -> dict[str, str]:
    """Write the recordings of a tar; return where each name of its rows lies."""
    found: dict[str, str] = {}
    whole = {_whole(name) for name in names} | names
    with tarfile.open(tar, "r|*") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and member.name in whole:
                name = f"{_AUDIO}/{tar.stem}/{_safe(member.name)}"
                _write(folder / name, content.read())
                found[member.name] = name
    places = {name: found.get(name) or found.get(_whole(name), "") for name in names}
    missing = sorted(name for name, place in places.items() if not place)
    if missing:
        raise DataError(
            f"'{tar.name}' lacks {len(missing)} recordings that its manifest names, first "
            f"'{missing[0]}'. The manifest belongs to other tars, or the tar is cut short."
        )
    return places


def _tar_of(listing: Path, row: Mapping[str, Any]) -> Path:
    name = f"audio_{row.get('shard_id')}.tar"
    for folder in (listing.parent, listing.parent.parent):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"'{name}', which '{listing.name}' names, is not beside it or above it.")


def _listing_of(tar: Path) -> tuple[Path, list[dict[str, Any]]] | None:
    """Return NeMo's listing of a tar, and its rows about it; None where there is none."""
    shard = tar.stem.removeprefix("audio_")
    own = tar.parent / "sharded_manifests" / f"manifest_{shard}.json"
    whole = tar.parent / _NEMO
    if tar.name != f"audio_{shard}.tar" or not (own.is_file() or whole.is_file()):
        return None
    listing = own if own.is_file() else whole
    return listing, [row for row in _rows_of(listing) if str(row.get("shard_id")) == shard]


def _cuts_of(tar: Path) -> Path | None:
    """Return the cuts of a Shar folder's tar; None where it is none."""
    if not tar.name.startswith("recording."):
        return None
    return next((one for one in _cuts(tar.parent) if _number(one) == _number(tar)), None)


def _tars(listing: Path) -> list[Path]:
    rows = (row for _, row in numbered_rows(listing))
    return sorted({_tar_of(listing, row) for row in rows if isinstance(row, dict)})


def _is_tarred(listing: Path) -> bool:
    try:
        _, row = next(numbered_rows(listing))
    except (DataError, StopIteration, OSError):
        return False  # whoever reads it as a manifest says what is wrong
    name = f"audio_{row.get('shard_id')}.tar" if isinstance(row, dict) else ""
    return any((folder / name).is_file() for folder in listing.resolve().parents[:2])


def _cuts(folder: Path) -> list[Path]:
    found = sorted(folder.glob("cuts.*.jsonl*")) if _recordings(folder) else []
    return [one for one in found if is_manifest(one.name)]


def _recordings(folder: Path) -> list[Path]:
    return sorted(folder.glob("recording.*.tar"))


def _number(path: Path) -> str:
    return path.name.split(".")[1]


def _known(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"the recordings of '{path}' cannot be read: {error}.") from error


def _whole(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(_PART.sub("", path.stem) + path.suffix))


def _safe(name: str) -> str:
    """Return a name that stays in its folder."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    return "/".join(parts) or "item"


def _free(name: str, suffix: str, taken: set[str]) -> str:
    place, count = f"{_AUDIO}/{_safe(name)}{suffix}", 1
    while place in taken:
        count += 1
        place = f"{_AUDIO}/{_safe(name)}~{count}{suffix}"
    taken.add(place)
    return place


def _suffix(data: bytes) -> str:
    return _MAGIC.get(data[:4], ".mp3" if data[:3] == b"ID3" or data[:1] == b"\xff" else ".audio")


def _write(path: Path, data: bytes) -> None:
    checksum = zlib.crc32(data)

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)
        os.utime(temporary, (checksum, checksum))

    known = path.stat() if path.is_file() else None
    if known is None or (known.st_size, int(known.st_mtime)) != (len(data), checksum):
        atomic_write(path, write)
