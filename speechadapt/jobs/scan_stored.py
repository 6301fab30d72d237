"""Inputs behind URLs: folders and globs become the recordings they hold, as on a file system."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from speechadapt.core.errors import DataError
from speechadapt.core.storage import Store, is_url, join_url, split_url
from speechadapt.data.manifest import Utterance, read_manifest
from speechadapt.jobs.scan_paths import MAX_TEXT_BYTES, is_audio_name, path_order

_THREADS = 16


class StoredInputs:
    """Lists what is behind URLs, and reads the texts that stand beside recordings.

    Args:
        avoid: The job's output, as a URL or a local path; what lies below it is no input.
    """

    def __init__(self, avoid: str | None) -> None:
        self._avoid = avoid
        self._listed: dict[str, frozenset[str]] = {}
        self._texts: dict[str, bytes | OSError | None] = {}

    def expand(self, url: str) -> list[tuple[str, str]] | None:
        """Find the recordings of a URL.

        Args:
            url: Of a folder, a file, or a glob.

        Returns:
            Each recording with the folder that its name is relative to; of a file that one,
            whatever its name. None where there is nothing.
        """
        if any(mark in url for mark in "*?["):
            return self._match(url)
        parent, name = split_url(url)
        if not name:
            return self._walk(url)
        try:
            Store(parent).stat(name)
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            return self._walk(url)
        return [(url, parent)]

    def rows(self, url: str) -> list[Utterance]:
        """Read a manifest.

        Raises:
            DataError: It cannot be read, or is malformed.
        """
        parent, name = split_url(url)
        with TemporaryDirectory(prefix="speechadapt-") as folder:
            path = Path(folder) / name
            try:
                Store(parent).fetch(name, path)
            except OSError as error:
                raise DataError(f"manifest {url!r} cannot be read: {_why(error)}.") from error
            return read_manifest(path)

    def lines(self, url: str) -> list[bytes]:
        """Read a list.

        Raises:
            DataError: It cannot be read.
        """
        parent, name = split_url(url)
        try:
            return Store(parent).read(name).splitlines()
        except OSError as error:
            raise DataError(f"list {url!r} cannot be read: {_why(error)}.") from error

    def has(self, url: str) -> bool:
        """Say whether there is a file."""
        for root, names in self._listed.items():
            if url.startswith(f"{root}/"):
                return url.removeprefix(f"{root}/") in names
        parent, name = split_url(url)
        return Store(parent).exists(name)

    def read_texts(self, urls: Iterable[str]) -> None:
        """Read the texts among `urls` that are there, several at a time, for `text`."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="text") as executor:
            wanted = list(urls)
            self._texts = dict(zip(wanted, executor.map(self._read, wanted), strict=True))

    def text(self, url: str) -> bytes | None:
        """Return a text; None where there is none.

        Raises:
            OSError: It cannot be read.
        """
        found = self._texts[url]
        if isinstance(found, OSError):
            raise found
        return found

    def _match(self, pattern: str) -> list[tuple[str, str]]:
        scheme, _, rest = pattern.partition("://")
        parts = rest.split("/")
        fixed = next(place for place, part in enumerate(parts) if set(part) & set("*?["))
        root = f"{scheme}://{'/'.join(parts[:fixed])}"
        found: list[tuple[str, str]] = []
        for name, is_folder in Store(root).glob("/".join(parts[fixed:])):
            url = join_url(root, name)
            if is_folder:
                found += self._walk(url)
            elif is_audio_name(name):
                found.append((url, split_url(url)[0]))
        return found

    def _walk(self, root: str) -> list[tuple[str, str]]:
        root = root if root.endswith("://") else root.rstrip("/")
        names = Store(root).names()
        self._listed[root] = frozenset(names)
        left_out = join_url(self._avoid, "") if self._avoid and is_url(self._avoid) else ""
        within = left_out.removeprefix(f"{root}/") if left_out.startswith(f"{root}/") else None
        found = []
        for name in sorted(names, key=path_order):
            hidden = any(part.startswith(".") for part in name.split("/"))
            inside = within is not None and name.startswith(f"{within}/")
            if is_audio_name(name) and not hidden and not inside:
                found.append((join_url(root, name), root))
        return found

    def _read(self, url: str) -> bytes | OSError | None:
        parent, name = split_url(url)
        try:
            if not self.has(url):
                return None
            store = Store(parent)
            if store.stat(name).size > MAX_TEXT_BYTES:
                return OSError(f"it is longer than {MAX_TEXT_BYTES} bytes")
            return store.read(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            return error


def _why(error: OSError) -> str:
    return error.strerror or str(error).rstrip(".")
