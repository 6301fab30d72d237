"""Files behind a URL (`s3://`, `gs://`, `hf://`, `memory://`, ...), through fsspec.

A store never shows half a file. Object stores make an object appear when its upload is complete, so
one upload is enough there; moving would not be, because they copy and then delete. Where an upload
shows while it grows (SFTP, HDFS), it goes to a hidden name and is renamed. A store that can do
neither is read from, not written to.

fsspec is imported when the first store is opened, never for local files; `file://` names those.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from speechadapt.core.errors import ConfigError, MissingExtra, StoreError

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
# Where an upload appears whole, or not at all.
_WHOLE = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "hf", "memory"),
)
# Where fsspec offers to make an object only if there is none, in one step of the store's own.
_CONDITIONAL = frozenset(("s3", "s3a", "gs", "gcs", "memory"))
_TEMPORARY = ".tmp-"
_BLOCK = 16 << 20
_ONE_REQUEST = 64 << 20
_VERSIONS = (
    "ETag", "etag", "generation", "blob_id", "mtime", "LastModified", "last_modified", "created",
)  # fmt: skip
_LASTING = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    NotImplementedError,
    TypeError,
)

Result = TypeVar("Result")


def is_url(text: str) -> bool:
    """Say whether a path names something behind a URL; `file://` names local files."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    return match is not None and match[1].lower() not in ("file", "local")


def plain_path(text: str) -> str:
    """Take `file://` off a path; anything else is returned as it is."""
    return re.sub(r"^(file|local)://", "", text, flags=re.IGNORECASE)


def join_url(url: str, name: str) -> str:
    """Return the URL of a name relative to another URL; a URL or an absolute path stands alone."""
    if is_url(name) or name.startswith("/"):
        return name
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, name))}"


def split_url(url: str) -> tuple[str, str]:
    """Return the URL of the folder that holds what a URL names, and its name there."""
    scheme, _, rest = url.partition("://")
    folder, _, name = rest.rstrip("/").rpartition("/")
    return f"{scheme}://{folder}", name


@dataclass(frozen=True)
class Stat:
    """What a store says of a file.

    Args:
        size: In bytes.
        version: Differs when the content does: a checksum, a generation or a time of change.
    """

    size: int
    version: str


class Store:
    """The files below one URL. Names are relative to it, with `/` between their parts.

    A call that fails is repeated, with growing pauses; where that does not help it raises
    `StoreError`. What repeating cannot mend (no such file, no permission) raises the `OSError` that
    a file system would raise.

    Args:
        url: The folder.

    Raises:
        ConfigError: No installed package knows the URL's scheme.
        MissingExtra: fsspec is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if not url.endswith("://") else url
        self.scheme = url.partition("://")[0].lower()
        self._fs, self._root = _open(url)
        self._prefix = f"{self._root.rstrip('/')}/" if self._root else str(self._fs.root_marker)

    @property
    def conditional(self) -> bool:
        """Whether `create` leaves the decision to the store, so that one of several succeeds."""
        return self.scheme in _CONDITIONAL

    def check_writable(self) -> None:
        """Raise unless files can be written without ever being visible in part.

        Raises:
            ConfigError: They cannot.
        """
        from fsspec import AbstractFileSystem

        renames = getattr(self._fs.mv, "__func__", None) is not AbstractFileSystem.mv
        if self.scheme not in _WHOLE and not renames:
            raise ConfigError(
                f"'{self.url}' was asked for as output; {self.scheme}:// shows files while they "
                f"are written and renames none. Known to be safe: {', '.join(sorted(_WHOLE))}, "
                "and what renames, such as sftp and hdfs."
            )

    def names(self, below: str = "") -> list[str]:
        """Return the names of all files, or of those below a folder, sorted; empty for none."""
        root = self._full(below) if below else self._root
        found = self._again(f"list '{below}'", lambda: self._find(root))
        cut = len(self._prefix)
        names = [path[cut:] for path in found if path != root and not path.endswith("/")]
        return sorted(each for each in names if not posixpath.basename(each).startswith(_TEMPORARY))

    def glob(self, pattern: str) -> list[tuple[str, bool]]:
        """Return what matches a pattern (`*` within a name, `**` across folders).

        Returns:
            Names, sorted, each with whether it is a folder.
        """
        path = self._full(pattern)
        found = self._again(f"list '{pattern}'", lambda: self._fs.glob(path, detail=True))
        cut = len(self._prefix)
        pairs = ((path[cut:], facts["type"] == "directory") for path, facts in found.items())
        return sorted(pair for pair in pairs if pair[0])

    def stat(self, name: str) -> Stat:
        """Return size and version of a file.

        Raises:
            FileNotFoundError: There is none.
            IsADirectoryError: It is a folder.
            StoreError: The store cannot be reached.
        """
        path = self._full(name)
        info = self._again(f"look at '{name}'", lambda: self._fs.info(path))
        if info.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._shown(name))
        version = next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), "")
        return Stat(int(info["size"]), version)

    def exists(self, name: str) -> bool:
        """Say whether there is such a file."""
        try:
            self.stat(name)
        except (FileNotFoundError, IsADirectoryError):
            return False
        return True

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return a file's bytes, or those from `start` up to `end`."""
        path = self._full(name)
        data = self._again(f"read '{name}'", lambda: self._fs.cat_file(path, start=start, end=end))
        return bytes(data)

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to this machine, block by block, each repeated on its own."""
        size = self.stat(name).size
        with target.open("wb") as handle:
            while (at := handle.tell()) < size:
                block = self.read(name, at, min(at + _BLOCK, size))
                if not block:
                    raise StoreError(f"'{self._shown(name)}' ends at byte {at} of {size}.")
                handle.write(block)

    def put(self, name: str, content: bytes | Path) -> None:
        """Write a file, whole or not at all, in the place of one that may be there."""
        path = self._full(name)
        if self.scheme in _WHOLE:
            self._again(f"write '{name}'", lambda: self._upload(path, content))
            return
        folder = path.rpartition("/")[0]
        hidden = f"{folder}/{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            self._again(f"write '{name}'", lambda: self._upload(hidden, content, folder))
            self._again(f"rename '{name}'", lambda: self._replace(hidden, path))
        except BaseException:
            self._remove(hidden)
            raise

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless there is one; say whether this call wrote it.

        Only where `conditional` is true does the store itself decide.
        """
        path = self._full(name)

        def attempt() -> None:
            self._fs.pipe_file(path, data, mode="create")

        try:
            self._again(f"create '{name}'", attempt)
        except FileExistsError:
            # A repeated call may meet what it wrote itself, when only the answer was lost.
            return self.read(name) == data
        return True

    def modified_s(self, name: str) -> float:
        """Return when a file was written, in seconds of the store's own clock."""
        path = self._full(name)
        found = self._again(f"look at '{name}'", lambda: self._fs.modified(path))
        return float(found.timestamp())

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone are none the worse."""
        for name in names:
            try:
                self._again(f"delete '{name}'", partial(self._fs.rm_file, self._full(name)))
            except FileNotFoundError:
                continue

    def _full(self, name: str) -> str:
        return self._prefix + name

    def _shown(self, name: str) -> str:
        return join_url(self.url, name)

    def _find(self, root: str) -> list[str]:
        self._fs.invalidate_cache(root)
        try:
            return list(self._fs.find(root))
        except FileNotFoundError:
            return []

    def _upload(self, path: str, content: bytes | Path, folder: str | None = None) -> None:
        if folder is not None:
            self._fs.makedirs(folder, exist_ok=True)
        if isinstance(content, Path) and content.stat().st_size > _ONE_REQUEST:
            self._fs.put_file(str(content), path)
        else:
            data = content.read_bytes() if isinstance(content, Path) else content
            self._fs.pipe_file(path, data)

    def _replace(self, hidden: str, path: str) -> None:
        try:
            self._fs.mv(hidden, path)
        except FileExistsError:
            self._fs.rm_file(path)
            self._fs.mv(hidden, path)

    def _remove(self, path: str) -> None:
        try:
            self._fs.rm_file(path)
        except Exception:
            return  # it is hidden, and nobody counts on its absence

    def _again(self, what: str, call: Callable[[], Result]) -> Result:
        """Call until it succeeds or every pause is used up."""
        for wait_s in (*WAITS_S, None):
            try:
                return call()
            except FileNotFoundError as error:
                text = os.strerror(errno.ENOENT)
                raise FileNotFoundError(errno.ENOENT, text, error.filename) from error
            except _LASTING:
                raise
            except Exception as error:
                if wait_s is None:
                    times = len(WAITS_S) + 1
                    found = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
                    raise StoreError(
                        f"cannot {what} in '{self.url}', tried {times} times: {found}"
                    ) from error
                time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")


def _open(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtra("remote", f"'{url}'") from error
    try:
        fs, root = url_to_fs(url)
    except ImportError as error:
        raise ConfigError(f"'{url}' was asked for; {error}.") from error
    except ValueError as error:
        raise ConfigError(f"'{url}' was asked for; fsspec says: {error}.") from error
    return fs, str(root)
