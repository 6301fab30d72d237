"""What one job is and another is not: its options, its model, its outputs, its worker, its figures.

Everything else (plan, journal, engines, resume, report) is shared. The module `jobs.<name>` of a
job holds its `KIND`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from speechadapt.core.errors import JobError, near_misses

if TYPE_CHECKING:
    from speechadapt.engines.base import Worker
    from speechadapt.jobs.folder import JobFolder
    from speechadapt.jobs.job_options import JobOptions
    from speechadapt.jobs.job_worker import WorkerSetup
    from speechadapt.jobs.ledger import Record
    from speechadapt.jobs.plan import Limits, PlanItem
    from speechadapt.metrics.wer import CorpusScore

KINDS = ("transcribe", "restore")


@runtime_checkable
class Figures(Protocol):
    """What a job's report says about its results, beside counts and speed."""

    def add(self, record: Record) -> None:
        """Take in one item's record."""

    def score(self) -> CorpusScore | None:
        """Return the scores of the texts; None where there are no references."""

    def to_json(self) -> dict[str, Any]:
        """Return whatever else there is, as JSON types."""

    def lines(self) -> Sequence[tuple[str, str]]:
        """Return the same for a person, as names and texts."""


@runtime_checkable
class Kind(Protocol):
    """One kind of job.

    Attributes:
        name: The name; that of its module and of its verb.
        options: Its options.
        packages: Packages whose change may change outputs, beside those the model names itself.
    """

    name: str
    options: type[JobOptions]
    packages: tuple[str, ...]

    def rows(self, folder: JobFolder) -> Path:
        """Return the file with one row an item."""

    def load(self, options: Any, threads: int | None) -> Any:
        """Load the model: something with a `fingerprint()` of JSON types.

        Args:
            options: What was asked for.
            threads: CPU threads; None as torch does.
        """

    def limits(self, options: Any, model: Any) -> Limits:
        """Return what a batch may hold."""

    def outputs(self, options: Any, item: PlanItem) -> tuple[str, ...]:
        """Return the files of an item that is done, relative to the output folder."""

    def worker(self, setup: WorkerSetup, model: Any, number: int, locked: bool) -> Worker:
        """Build a worker.

        Args:
            setup: What it needs.
            model: What `load` gave.
            number: The worker's number.
            locked: Whether it holds the workers' lock (see `job_worker.JobWorker`).
        """

    def check_output(self, path: Path, record: Record) -> str | None:
        """Say what is wrong with an output file; None where nothing is."""

    def figures(self, normaliser: str) -> Figures:
        """Return empty figures of a report.

        Args:
            normaliser: Of the scores of texts.
        """


def kind_named(name: str) -> Kind:
    """Return a kind of job.

    Args:
        name: Its name.

    Raises:
        JobError: There is no such job.
    """
    if name not in KINDS:
        raise JobError(f"this release knows no job '{name}'.{near_misses(name, KINDS)}")
    found: Kind = import_module(f"speechadapt.jobs.{name}").KIND
    return found
