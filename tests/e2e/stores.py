"""Stores in memory for jobs: what they hold, and file systems that fail where they are told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speechadapt.core.storage import Store
from speechadapt.jobs.place import STATE


def upload(folder: Path, url: str) -> None:
    """Copy a folder to a store."""
    store = Store(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path)


def stored(url: str) -> dict[str, bytes]:
    """Return every file that is an output, not state."""
    store = Store(url)
    names = [name for name in store.names() if not name.startswith(f"{STATE}/")]
    return {name: store.read(name) for name in names}


def stored_journal(url: str) -> list[dict]:
    """Return the lines of all journals, segments laid end to end."""
    store = Store(url)
    lines: list[dict] = []
    for name in store.names(f"{STATE}/journal"):
        lines += map(json.loads, store.read(name).splitlines())
    return lines


class Failing:
    """A file system whose calls fail from one on; made fresh it only counts them.

    Args:
        inner: The true file system.
        at: The call that fails first, counted from 1; 0 for none.
        calls: How many fail from there; None for all.
        error: What they raise.
    """

    def __init__(
        self, at: int = 0, calls: int | None = None, error: Callable[[], BaseException] = OSError
    ) -> None:
        self.at, self.calls, self.error = at, calls, error
        self.count = 0
        self._lock = threading.Lock()

    def wrap(self, inner: Any) -> Any:
        """Return the file system with these failures."""
        return _Wrapped(self, inner)

    def check(self) -> None:
        """Count a call; raise where it is one that fails."""
        with self._lock:
            self.count += 1
            last = self.count if self.calls is None else self.at + self.calls - 1
            if self.at and self.at <= self.count <= last:
                raise self.error()


class _Wrapped:
    def __init__(self, failing: Failing, inner: Any) -> None:
        self._failing, self._inner = failing, inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name == "invalidate_cache":
            return found

        def call(*arguments: Any, **settings: Any) -> Any:
            self._failing.check()
            return found(*arguments, **settings)

        return call
