"""Paths of inputs, local and behind URLs: what is audio, where a name leads, in which order."""

from __future__ import annotations

import os
from pathlib import Path

from speechadapt.core.errors import DataError
from speechadapt.core.storage import is_url, join_url, plain_path

AUDIO_SUFFIXES = frozenset(
    (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm", ".mka", ".aac")
)
MAX_TEXT_BYTES = 1 << 20


def is_audio_name(name: str) -> bool:
    """Say whether a name ends like that of a recording."""
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES


def path_order(path: str) -> list[bytes]:
    """Return what paths are sorted by: the bytes of their parts."""
    return [os.fsencode(part) for part in path.split(os.sep)]


def place_of(name: str, folder: str) -> str:
    """Return where a name leads that a file in `folder` gives."""
    name = plain_path(name)
    if is_url(name) or is_url(folder):
        return join_url(folder, name)
    return os.path.normpath(os.path.join(folder, name))


def as_path(path: str) -> Path | str:
    """Return a path, or a URL as it is."""
    return path if is_url(path) else Path(path)


def real_path(path: str) -> str:
    """Return a path without links, or a URL as it is."""
    return path if is_url(path) else os.path.realpath(path)


def lexical(path: str) -> str:
    """Return a path whose parts compare with those of local ones."""
    return "/" + path.replace("://", ":/", 1) if is_url(path) else path


def safe_stem(name: str) -> str:
    """Make a row's path one that stays inside the output folder."""
    name = name.partition("://")[2] if is_url(name) else name
    parts = os.path.splitext(os.path.normpath(name))[0].split(os.sep)
    return os.path.join(*([part for part in parts if part not in ("", ".", "..")] or ["item"]))


def read_text(path: str) -> bytes | None:
    """Return the reference text of a local recording; None where there is none.

    Raises:
        DataError: It is no file, or too long for a text.
        OSError: It cannot be read.
    """
    if not os.path.lexists(path):
        return None
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_TEXT_BYTES:
        raise DataError(f"reference {path!r} is no text file below {MAX_TEXT_BYTES} bytes.")
    return Path(path).read_bytes()
