"""Local copies of recordings behind URLs, so that decoders read files whatever the store.

A copy lives while somebody reads it; a few that nobody reads any more are kept for the next reader
(a recording that is surveyed and then restored, the rows of a manifest that share one), so the disk
holds what is being read and a fixed amount beside it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from speechadapt.core.errors import AudioError
from speechadapt.core.storage import Store, is_url, split_url
from speechadapt.jobs.plan import PlanItem

_KEPT_BYTES = 1 << 30
# Enough to hold everything before the sound in wav and flac files.
_HEAD_BYTES = 1 << 16
_HEADS = (b"RIFF", b"fLaC")


@dataclass
class _Copy:
    file: Path
    readers: int = 0
    whole: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.whole else 0


class Copies:
    """Copies in one folder, for the threads of one process.

    Args:
        folder: Holds the copies; nobody else's.
        kept_bytes: What copies without a reader may take up.
    """

    def __init__(self, folder: Path, kept_bytes: int = _KEPT_BYTES) -> None:
        self._folder, self._kept_bytes = folder, kept_bytes
        self._copies: dict[str, _Copy] = {}
        self._lock = threading.Lock()
        self._number = 0

    @contextmanager
    def near(self, item: PlanItem) -> Iterator[PlanItem]:
        """Lend an item whose path is a local file with the same name.

        Args:
            item: Any item; a local one is passed through.

        Raises:
            AudioError: `UNREADABLE`: it is not there, or cannot be reached.
        """
        if not is_url(item.path):
            yield item
            return
        copy = self._take(item.path)
        try:
            with copy.lock:
                if not copy.whole:
                    _fetch(item.path, copy.file)
                    copy.whole = True
            yield replace(item, path=str(copy.file))
        finally:
            self._leave(copy)

    def clear(self) -> None:
        """Remove all copies."""
        with self._lock:
            self._copies.clear()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _take(self, url: str) -> _Copy:
        with self._lock:
            copy = self._copies.pop(url, None)
            if copy is None:
                self._number += 1
                copy = _Copy(self._folder / str(self._number) / split_url(url)[1])
            self._copies[url] = copy  # at the end: the last one read is the last to go
            copy.readers += 1
        return copy

    def _leave(self, copy: _Copy) -> None:
        with self._lock:
            copy.readers -= 1
            idle = [(url, each) for url, each in self._copies.items() if not each.readers]
            held = sum(each.size for _, each in idle)
            for url, each in idle:
                if each.whole and held <= self._kept_bytes:
                    continue
                held -= each.size
                del self._copies[url]
                shutil.rmtree(each.file.parent, ignore_errors=True)


@contextmanager
def header_copy(url: str, size: int) -> Iterator[Path]:
    """Lend a file whose header reads like that of a remote recording, and which is as long.

    Of wav and flac it holds the beginning alone, with nothing behind it; others are copied whole,
    because what states their length may lie anywhere.

    Args:
        url: The recording.
        size: Its bytes.

    Raises:
        OSError: It cannot be read.
    """
    parent, name = split_url(url)
    store = Store(parent)
    with TemporaryDirectory(prefix="speechadapt-") as folder:
        path = Path(folder) / name
        head = store.read(name, 0, min(size, _HEAD_BYTES)) if size else b""
        if head[:4] in _HEADS or len(head) == size:
            with path.open("wb") as handle:
                handle.write(head)
                handle.truncate(size)
        else:
            store.fetch(name, path)
        yield path


def _fetch(url: str, target: Path) -> None:
    parent, name = split_url(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        Store(parent).fetch(name, target)
    except OSError as error:
        found = error.strerror or str(error).rstrip(".")
        raise AudioError("UNREADABLE", f"{name!r} cannot be opened: {found}.") from error
