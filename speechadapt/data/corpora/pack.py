"""The development pack: many small corpora of real speech and sound in one folder.

Layout: `manifests/<corpus>.jsonl` (one object a line: `id, audio, tar, split, duration, text, lang,
speaker, ...`), audio either unpacked under `audio/` or still inside the tar files a row names.
Training uses the `train` splits alone.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechadapt.core.errors import DataError, near_misses
from speechadapt.core.files import read_lines
from speechadapt.data.manifest import Utterance


def corpora(root: Path) -> list[str]:
    """Return the names of the corpora under `root`, sorted."""
    return sorted(path.stem for path in (root / "manifests").glob("*.jsonl"))


def load_corpus(root: Path, name: str, split: str | None = None) -> list[Utterance]:
    """Read one corpus.

    Args:
        root: The pack's folder.
        name: A corpus, as in `manifests/<name>.jsonl`.
        split: Keep rows of this split alone; None keeps all.

    Returns:
        Utterances in the manifest's order; `extra` keeps the row's other fields plus `corpus`.

    Raises:
        DataError: The corpus or the split is not there.
    """
    path = root / "manifests" / f"{name}.jsonl"
    if not path.is_file():
        raise DataError(f"no corpus '{name}' under data.root.{near_misses(name, corpora(root))}")
    rows = [row for _, row in read_lines(path)]
    kept = [row for row in rows if split is None or row["split"] == split]
    if not kept:
        splits = {row["split"] for row in rows}
        raise DataError(f"corpus '{name}' has no split '{split}'.{near_misses(str(split), splits)}")
    return [_utterance(row, name) for row in kept]


def load_splits(root: Path, names: Sequence[str], split: str) -> list[Utterance]:
    """Read the same split of several corpora, one after the other."""
    return [utterance for name in names for utterance in load_corpus(root, name, split)]


def read_audio(root: Path, utterance: Utterance) -> tuple[NDArray[np.float32], int]:
    """Read an utterance's samples, from the unpacked file or from its tar.

    Returns:
        Mono samples in [-1, 1] and the sample rate in Hz.

    Raises:
        DataError: Neither the file nor its tar is under `root`.
    """
    import soundfile

    path = root / utterance.audio_filepath
    source: Path | io.BytesIO = path
    if not path.is_file():
        source = io.BytesIO(_from_tar(root, str(utterance.extra.get("tar", "")), utterance))
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32)), int(rate)


def _utterance(row: dict[str, Any], corpus: str) -> Utterance:
    known = ("id", "audio", "duration", "text", "lang", "speaker")
    return Utterance(
        audio_filepath=row["audio"],
        duration=float(row["duration"]),
        text=row.get("text"),
        lang=row.get("lang"),
        speaker=row.get("speaker"),
        id=row["id"],
        extra={key: value for key, value in row.items() if key not in known} | {"corpus": corpus},
    )


def _from_tar(root: Path, tar: str, utterance: Utterance) -> bytes:
    archive = root / tar
    if not tar or not archive.is_file():
        raise DataError(
            f"utterance '{utterance.id}' needs {utterance.audio_filepath} or {tar or 'its tar'}; "
            f"neither is under data.root."
        )
    offset, size = _members(archive)[utterance.audio_filepath]
    with archive.open("rb") as handle:
        handle.seek(offset)
        return handle.read(size)


@lru_cache(maxsize=64)
def _members(archive: Path) -> dict[str, tuple[int, int]]:
    with tarfile.open(archive) as tar:
        return {member.name: (member.offset_data, member.size) for member in tar if member.isfile()}
