"""A job whose outputs, and as a rule its state, lie behind a URL.

Object stores append to nothing, so a journal is kept as immutable segments: the lines that a worker
added to its local file since its last segment become the object
`journal/WORKER/START-END.jsonl`, named by the bytes it covers. All segments laid end to end are the
journal. A worker writes one at most every `PUSH_S` seconds, and what is left when it ends; the
outputs of an item are always there before its line. A machine that dies takes lines of so many
seconds with it, whose items are done again and give the same bytes.

The plan, the fingerprint and claims are made with a conditional write, so one of several drivers
succeeds. A store without it cannot hold the state; `--job-folder` keeps that on a file system, as
for local jobs, and the outputs alone go to the store.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from speechadapt.core.errors import ConfigError, JobError
from speechadapt.core.files import hash_bytes
from speechadapt.core.storage import Store
from speechadapt.jobs.commit import ItemFiles
from speechadapt.jobs.lease import Lease
from speechadapt.jobs.object_lease import ObjectLease, holder_of
from speechadapt.jobs.place import STATE, Claim

PUSH_S = 30.0
_THREADS = 8
_ROWS = ("transcripts.jsonl", "restored.jsonl")
_FIXED = ("job.json", "plan/")
_SEGMENT = re.compile(r"journal/([^/]+)/(\d+)-(\d+)\.jsonl")


class Outputs:
    """Outputs in a store, each written as one object (see `Store.put`).

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def commit(self, staging: Path, items: Sequence[ItemFiles]) -> Mapping[str, str]:
        """Upload files, several at a time; finished ones are removed here."""
        tasks = [(item.id, name, content) for item in items for name, content in item.files.items()]

        def upload(task: tuple[str, str, str | Path]) -> str | None:
            _, name, content = task
            try:
                self._store.put(name, _to_bytes(content))
            except OSError as error:
                return f"cannot write '{name}': {error}"
            finally:
                if isinstance(content, Path):
                    content.unlink(missing_ok=True)
            return None

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="upload") as executor:
            found = executor.map(upload, tasks)
            problems = {task[0]: text for task, text in zip(tasks, found, strict=True) if text}
        return problems

    def missing(self, names: Iterable[str]) -> frozenset[str]:
        """List the store once and compare."""
        wanted = frozenset(names)
        return wanted.difference(self._store.names()) if wanted else wanted

    @contextmanager
    def near(self, name: str) -> Iterator[Path]:
        """Lend a copy."""
        with TemporaryDirectory(prefix="speechadapt-") as folder:
            path = Path(folder) / name.rpartition("/")[2]
            self._store.fetch(name, path)
            yield path


class SplitPlace:
    """Outputs in a store, state in a folder on a file system (see `place.Place`).

    Args:
        url: Where the outputs go.
        folder: Holds the state, and the job's rows.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.shown, self.folder, self.run = url, folder, ""
        self.locks = folder / STATE / "locks"
        self._store = Store(url)
        self._store.check_writable()
        self._outputs = Outputs(self._store)
        self.commit, self.missing = self._outputs.commit, self._outputs.missing
        self.near = self._outputs.near
        self._rows = _Uploads(self._store, folder)

    def pull(self) -> None:
        """Do nothing: the state is here."""

    def push(self) -> None:
        """Upload the job's rows."""
        self._rows.upload(_ROWS)

    def forget(self) -> None:
        """Remove the job's rows."""
        self._store.delete(_ROWS)

    def journal_name(self, name: str) -> str:
        """Return the name itself."""
        return name

    def journalled(self, journal: Path, closing: bool) -> None:
        """Do nothing: the line is durable."""

    def claim(self, name: str) -> Lease:
        """Return a lease, a file beside the locks."""
        return Lease(self.locks / f"{name}.lease", f"'{self.shown}'")

    def guard(self, name: str, wait_s: float) -> AbstractContextManager[object]:
        """Hold off nobody: the job folder's lock does."""
        return nullcontext()


class StoredPlace:
    """Outputs and state in a store (see `place.Place`).

    The local folder is a copy that lives as long as a run; nothing in it is trusted by the next.

    Args:
        url: Where the job lies.
        part: Names the driver (`1-of-4`), or who looks at the job.
        run: The run whose folder is to be shared, for its workers; empty for a folder of its own,
            which is removed with the value.
    """

    def __init__(self, url: str, part: str, run: str = "") -> None:
        self._store, self._part = Store(url), part
        self._store.check_writable()
        self._check_conditional()
        home = _cache() / hash_bytes(self._store.url.encode())[:16]
        home.mkdir(parents=True, exist_ok=True)
        self.shown, self.locks = url, home / "locks"
        if run:
            self.folder = home / run
        else:
            self.folder = Path(tempfile.mkdtemp(prefix=f"{part}-", dir=home))
            weakref.finalize(self, shutil.rmtree, self.folder, True)
        self.run = self.folder.name
        self._outputs = Outputs(self._store)
        self.commit, self.missing = self._outputs.commit, self._outputs.missing
        self.near = self._outputs.near
        self._uploads = _Uploads(self._store, self.folder)
        self._pushed: dict[str, int] = {}
        self._last_s: dict[str, float] = {}

    def pull(self) -> None:
        """Fetch the plan, the fingerprint and what others journalled.

        The processes of a run share its folder, so one at a time adds to it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "pull.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._pull(self._state_names())
        finally:
            os.close(descriptor)

    def push(self) -> None:
        """Upload fingerprint and plan where they are new, the rest where it changed."""
        for path in sorted((self.folder / STATE / "journal").glob("*.jsonl")):
            self._push_tail(path)
        state = self.folder / STATE
        fixed = [state / "job.json", *sorted((state / "plan").glob("*.jsonl"))]
        for path in fixed:
            name = path.relative_to(self.folder).as_posix()
            if not path.is_file() or not self._uploads.is_new(name):
                continue
            if not self._store.create(name, path.read_bytes()):
                raise JobError(
                    f"another run began the job in '{self.shown}' meanwhile; give the command "
                    "again."
                )
            self._uploads.note(name)
        changing = ("request.json", "failed.jsonl", "summary.json")
        self._uploads.upload((*(f"{STATE}/{name}" for name in changing), *_ROWS))

    def forget(self) -> None:
        """Remove rows, journals and plan, then the fingerprint; claims stay."""
        gone = [name for name in self._state_names() if not name.startswith("leases/")]
        gone.sort(key=lambda name: name == "job.json")
        self._store.delete((*_ROWS, *(f"{STATE}/{name}" for name in gone)))
        self._uploads.forget()
        self._pushed.clear()

    def journal_name(self, name: str) -> str:
        """Return a name that no other writer has, so that nobody's segments are another's."""
        return f"{name}-{os.urandom(4).hex()}"

    def journalled(self, journal: Path, closing: bool) -> None:
        """Write a segment when it is time; what cannot be written now waits for `push`."""
        last_s = self._last_s.setdefault(journal.name, time.monotonic())
        if not closing and time.monotonic() - last_s < PUSH_S:
            return
        self._last_s[journal.name] = time.monotonic()
        try:
            self._push_tail(journal)
        except OSError:
            return

    @contextmanager
    def claim(self, name: str) -> Iterator[Claim]:
        """Claim a part; the whole job excludes all parts, parts exclude other divisions."""
        claimed = ObjectLease(self._store, f"{STATE}/leases/{name}", f"'{self.shown}'")
        with claimed:
            for other in self._other_parts(name):
                facts = holder_of(self._store, f"{STATE}/leases/{other}")
                if facts is not None:
                    raise JobError(
                        f"another run is at work on '{self.shown}' as {other}: process "
                        f"{facts.get('pid')} on {facts.get('host')}. Let it finish or stop "
                        "it first."
                    )
            self._remove_leftovers()
            yield claimed

    @contextmanager
    def guard(self, name: str, wait_s: float) -> Iterator[None]:
        """Claim what all parts write, and bring it up to date."""
        if name not in ("plan", "report"):
            yield
            return
        lease = ObjectLease(
            self._store, f"{STATE}/leases/{name}", f"'{self.shown}' ({name})", wait_s=wait_s
        )
        with lease:
            self.pull()
            yield

    def _check_conditional(self) -> None:
        if not self._store.conditional:
            raise ConfigError(
                f"-o '{self._store.url}' was asked to hold the job's state, but "
                f"{self._store.scheme}:// offers no conditional write, by which one of two drivers "
                "wins. Keep the state on a file system: --job-folder DIR."
            )

    def _state_names(self) -> list[str]:
        return [name.removeprefix(f"{STATE}/") for name in self._store.names(STATE)]

    def _pull(self, names: Sequence[str]) -> None:
        known = self.folder / STATE
        wanted = [name for name in names if name.startswith((*_FIXED, "request.json"))]
        wanted = [name for name in wanted if not (known / name).exists()]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="pull") as executor:
            contents = executor.map(self._read, wanted)
            for name, data in zip(wanted, contents, strict=True):
                self._write(known / name, data)
                self._uploads.note(f"{STATE}/{name}")
            self._pull_journals(names, executor)

    def _read(self, name: str) -> bytes:
        return self._store.read(f"{STATE}/{name}")

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def _pull_journals(self, names: Sequence[str], executor: ThreadPoolExecutor) -> None:
        """Append to each journal the segments that go on where the local file ends."""
        found = [match for name in names if (match := _SEGMENT.fullmatch(name))]
        sizes: dict[str, int] = {}
        wanted = []
        for match in sorted(found, key=lambda match: (match[1], int(match[2]))):
            journal, start, end = match[1], int(match[2]), int(match[3])
            if journal not in sizes:
                path = self._journal(journal)
                sizes[journal] = path.stat().st_size if path.exists() else 0
            if start == sizes[journal]:
                wanted.append(match)
                sizes[journal] = end
            self._pushed[f"{journal}.jsonl"] = max(self._pushed.get(f"{journal}.jsonl", 0), end)
        contents = executor.map(lambda match: self._read(match[0]), wanted)
        for match, data in zip(wanted, contents, strict=True):
            path = self._journal(match[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as handle:
                handle.write(data)

    def _journal(self, name: str) -> Path:
        return self.folder / STATE / "journal" / f"{name}.jsonl"

    def _push_tail(self, path: Path) -> None:
        """Write what a journal has and the store has not as one segment."""
        folder = f"{STATE}/journal/{path.stem}"
        if path.name not in self._pushed:
            ends = [int(_stem(name).partition("-")[2]) for name in self._store.names(folder)]
            self._pushed[path.name] = max(ends, default=0)
        start = self._pushed[path.name]
        with path.open("rb") as handle:
            handle.seek(start)
            data = handle.read()
        if data:
            end = start + len(data)
            self._store.put(f"{folder}/{start:012d}-{end:012d}.jsonl", data)
            self._pushed[path.name] = end

    def _other_parts(self, mine: str) -> list[str]:
        """Return the claims that exclude this one."""
        leases = f"{STATE}/leases/"
        names = {name.removeprefix(leases).split("/")[0] for name in self._store.names(leases[:-1])}
        count = mine.rpartition("-of-")[2]
        return sorted(
            name
            for name in names
            if re.fullmatch(r"driver-\d+-of-\d+", name)
            and name != mine
            and name.rpartition("-of-")[2] != count
        )

    def _remove_leftovers(self) -> None:
        """Remove the folders of this part's runs that were killed."""
        for path in self.folder.parent.glob(f"{self._part}-*"):
            if path != self.folder:
                shutil.rmtree(path, ignore_errors=True)


class _Uploads:
    """Uploads files of a folder under their names there, again only when they change."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._seen: dict[str, tuple[int, int]] = {}

    def is_new(self, name: str) -> bool:
        """Say whether a file is unlike what was uploaded or noted."""
        return self._seen.get(name) != self._look(name)

    def note(self, name: str) -> None:
        """Take a file as uploaded."""
        self._seen[name] = self._look(name)

    def forget(self) -> None:
        """Take nothing as uploaded."""
        self._seen.clear()

    def upload(self, names: Iterable[str]) -> None:
        """Upload those files that are there and new."""
        for name in names:
            path = self._folder / name
            if path.is_file() and self.is_new(name):
                self._store.put(name, path)
                self.note(name)

    def _look(self, name: str) -> tuple[int, int]:
        found = (self._folder / name).stat()
        return found.st_size, found.st_mtime_ns


def _to_bytes(content: str | Path) -> bytes | Path:
    return content if isinstance(content, Path) else content.encode("utf-8", "surrogateescape")


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "speechadapt" / "jobs"
