"""Put the outputs of a batch on disk: all of them durable under a temporary name, then renamed.

One group costs one flush per file and one per folder, where file by file each folder would be
flushed again for every file. A journal line is written only after `commit` returned. Temporary
files lie in the job's state folder, so a run that is killed leaves nothing among the outputs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechadapt.core.files import sync_file, sync_folder


@dataclass(frozen=True)
class ItemFiles:
    """The files of one item.

    Args:
        id: The item's id.
        files: Content by path relative to the output folder: a text, or a finished file on the
            same file system, which is moved.
    """

    id: str
    files: Mapping[str, str | Path]


def commit(output: Path, staging: Path, items: Sequence[ItemFiles]) -> dict[str, str]:
    """Write the files of several items, each whole or not at all.

    A file that cannot be written costs its own item only.

    Args:
        output: The output folder.
        staging: A folder on the same file system that nobody else uses; emptied by the call.
        items: The items with their contents.

    Returns:
        What went wrong, by item id; empty where all is well.
    """
    staging.mkdir(parents=True, exist_ok=True)
    problems: dict[str, str] = {}
    staged: list[tuple[str, Path, Path]] = []
    for item in items:
        for name, content in item.files.items():
            made = isinstance(content, Path)
            temporary = Path(content) if made else staging / str(len(staged))
            staged.append((item.id, temporary, output / name))
            try:
                if made:
                    sync_file(temporary)
                else:
                    _write_durably(temporary, str(content))
            except OSError as error:
                problems[item.id] = f"cannot write '{name}': {error}"
    folders: set[Path] = set()
    for identifier, temporary, target in staged:
        try:
            if identifier not in problems:
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(target)
                folders.add(target.parent)
        except OSError as error:
            problems[identifier] = f"cannot write '{target}': {error}"
        temporary.unlink(missing_ok=True)
    for folder in folders:
        sync_folder(folder)
    return problems


def _write_durably(path: Path, content: str) -> None:
    data = content.encode("utf-8", "surrogateescape")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
