"""Where a job's outputs and state lie: on a file system, or (`place_remote`) behind a URL.

A job works on a local folder in either case. A place puts outputs where they belong, brings the
state of a job to that folder and back, and says who may work on it. On a file system the folder is
the place, and there is nothing to bring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from speechadapt.jobs.commit import ItemFiles, commit
from speechadapt.jobs.lease import Lease

STATE = ".speechadapt"


@runtime_checkable
class Claim(Protocol):
    """A claim on work that others may take over once its holder is not heard of."""

    @property
    def lost(self) -> bool:
        """Whether it is no longer this run's."""
        ...


@runtime_checkable
class Place(Protocol):
    """Where a job's outputs and state lie."""

    @property
    def shown(self) -> str:
        """What messages call it."""
        ...

    @property
    def folder(self) -> Path:
        """The local folder that the job works on."""
        ...

    @property
    def locks(self) -> Path:
        """The folder of the locks that end with their process."""
        ...

    @property
    def run(self) -> str:
        """Names this run's own folder among those of other runs; empty where all share one."""
        ...

    def commit(self, staging: Path, items: Sequence[ItemFiles]) -> Mapping[str, str]:
        """Write the files of several items (see `commit.commit`).

        Args:
            staging: A folder of this worker's own.
            items: The items with their contents.

        Returns:
            What went wrong, by item id.
        """
        ...

    def missing(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of the outputs `names` that are not there."""
        ...

    def near(self, name: str) -> AbstractContextManager[Path]:
        """Lend an output as a local file.

        Raises:
            OSError: It is not there, or cannot be reached.
        """
        ...

    def pull(self) -> None:
        """Bring the state that others wrote to the folder.

        Raises:
            StoreError: The store is out of reach.
        """
        ...

    def push(self) -> None:
        """Bring all that the folder has, and the place has not, to the place.

        Raises:
            JobError: Another run wrote it first.
            StoreError: The store is out of reach.
        """
        ...

    def forget(self) -> None:
        """Remove the state of the job from the place, its fingerprint last."""
        ...

    def journal_name(self, name: str) -> str:
        """Return the name of a journal that a writer calls `name`."""
        ...

    def journalled(self, journal: Path, closing: bool) -> None:
        """Note that lines were added to a journal, or that it is closed."""
        ...

    def claim(self, name: str) -> AbstractContextManager[Claim]:
        """Return a claim on a part of the job (`driver-1-of-4`), to be entered."""
        ...

    def guard(self, name: str, wait_s: float) -> AbstractContextManager[object]:
        """Hold the others off for a moment, on all hosts; the folder is then up to date.

        Args:
            name: `plan` or `report`.
            wait_s: Seconds to wait for another holder.
        """
        ...


@dataclass(frozen=True)
class LocalPlace:
    """A folder on a file system that all who work on the job see.

    Args:
        folder: The job's output folder.
    """

    folder: Path

    @property
    def shown(self) -> str:
        """The folder as it was given."""
        return str(self.folder)

    @property
    def locks(self) -> Path:
        """A folder of the state."""
        return self.folder / STATE / "locks"

    @property
    def run(self) -> str:
        """Nothing: all runs share the folder."""
        return ""

    def commit(self, staging: Path, items: Sequence[ItemFiles]) -> Mapping[str, str]:
        """Write durably under temporary names, then rename."""
        return commit(self.folder, staging, items)

    def missing(self, names: Iterable[str]) -> frozenset[str]:
        """Look for each file."""
        return frozenset(name for name in names if not (self.folder / name).is_file())

    @contextmanager
    def near(self, name: str) -> Iterator[Path]:
        """Lend the file itself."""
        yield self.folder / name

    def pull(self) -> None:
        """Do nothing: what others wrote is there."""

    def push(self) -> None:
        """Do nothing: it is there."""

    def forget(self) -> None:
        """Do nothing: the folder's state is the state."""

    def journal_name(self, name: str) -> str:
        """Return the name itself."""
        return name

    def journalled(self, journal: Path, closing: bool) -> None:
        """Do nothing: the line is durable."""

    def claim(self, name: str) -> Lease:
        """Return a lease, a file beside the locks."""
        return Lease(self.locks / f"{name}.lease", f"'{self.folder}'")

    def guard(self, name: str, wait_s: float) -> AbstractContextManager[object]:
        """Hold off nobody: the job folder's lock does."""
        return nullcontext()
