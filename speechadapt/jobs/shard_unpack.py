"""Lay the recordings of a WebDataset tar into a folder, with the rows of a manifest about them."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from speechadapt.core.errors import DataError
from speechadapt.data.packed import unpack_tar
from speechadapt.data.shard_tar import Sample, read_shard
from speechadapt.jobs.scan_paths import AUDIO_SUFFIXES

_KNOWN = ("text", "lang", "speaker", "duration", "offset")


def unpack_shard(tar: Path, folder: Path) -> list[dict[str, Any]]:
    """Write the recordings of a tar; files that are there already with their size are kept.

    A sample's text stands in its `txt`, or in its `json` beside `lang` and `speaker`; that of a
    tar of lhotse's or NeMo's in the files beside the tar (see `data.packed`). A file is
    given the same time however often it is unpacked, so that a job that was interrupted goes on.

    Args:
        tar: The tar.
        folder: Receives the recordings.

    Returns:
        A row for each sample.

    Raises:
        DataError: The tar is damaged, or a sample has no recording or leads out of the folder.
    """
    packed = unpack_tar(tar, folder)
    if packed is not None:
        return packed
    rows = []
    for sample in read_shard(tar):
        suffix = next((name for name in sample.files if f".{name}" in AUDIO_SUFFIXES), None)
        if suffix is None:
            raise DataError(
                f"'{sample.key}' in '{tar.name}' has no recording; found "
                f"{', '.join(sorted(sample.files))}."
            )
        path = folder / _safe(sample.key, tar).with_name(
            f"{PurePosixPath(sample.key).name}.{suffix}"
        )
        content = sample.files[suffix]
        if not path.is_file() or path.stat().st_size != len(content):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        os.utime(path, (0, 0))
        rows.append(
            {"audio_filepath": str(path.resolve()), "id": sample.key, **_facts(sample, tar)}
        )
    return rows


def _safe(key: str, tar: Path) -> PurePosixPath:
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"'{key}' in '{tar.name}' leads out of the folder.")
    return path


def _facts(sample: Sample, tar: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    try:
        if "json" in sample.files:
            found = json.loads(sample.files["json"])
            facts = {name: found[name] for name in _KNOWN if found.get(name) is not None}
        if "txt" in sample.files:
            facts["text"] = sample.files["txt"].decode("utf-8").strip()
    except (ValueError, AttributeError) as error:
        raise DataError(f"'{sample.key}' in '{tar.name}' cannot be read: {error}.") from error
    return facts
