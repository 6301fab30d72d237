"""The state folder of a job: where its files lie, its fingerprint, and who may work on it.

OUT/.speechadapt/
    job.json            fingerprint: versions, model, every option that changes outputs
    plan/NNNN.jsonl     items and batches, in generations (see `plan`)
    journal/*.jsonl     what became of each item (see `ledger`)
    failed.jsonl        items without a whole transcript, with reasons
    summary.json        counts, scores, timings
    locks/              which drivers and workers are alive
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speechadapt.core.errors import FingerprintError, JobError
from speechadapt.core.files import atomic_write_json, hash_json
from speechadapt.core.storage import is_url, plain_path
from speechadapt.jobs.job_options import JobOptions
from speechadapt.jobs.kind import KINDS, Kind, kind_named
from speechadapt.jobs.ledger import Journal
from speechadapt.jobs.place import STATE, LocalPlace, Place

_ORPHAN_WAIT_S = 30.0


class JobFolder:
    """Paths and locks of one job.

    Args:
        output: The folder that receives the job's outputs; of a job behind a URL, the local folder
            that it works on.
        place: Where the job lies; None for the folder itself.
    """

    def __init__(self, output: Path, place: Place | None = None) -> None:
        self.output = output
        self.place: Place = LocalPlace(output) if place is None else place
        self.state = output / STATE
        self.job = self.state / "job.json"
        self.request = self.state / "request.json"
        self.plan = self.state / "plan"
        self.journal = self.state / "journal"
        self.failed = self.state / "failed.jsonl"
        self.summary = self.state / "summary.json"
        self.transcripts = output / "transcripts.jsonl"
        self.restored = output / "restored.jsonl"
        self.locks = self.place.locks

    def exists(self) -> bool:
        """Say whether a job was begun here."""
        return self.job.is_file()

    def check_exists(self) -> None:
        """Raise unless a job was begun here.

        Raises:
            JobError: There is no job folder.
        """
        if not self.exists():
            raise JobError(f"'{self.place.shown}' holds no job: {STATE}/job.json is missing there.")

    @contextlib.contextmanager
    def lock(self, name: str, wait_s: float = 0.0, shared: bool = False) -> Iterator[None]:
        """Hold a lock that ends with this process, however it ends.

        Behind a URL, `plan` and `report` hold off other hosts too and bring the folder up to date.

        Args:
            name: What is locked (`driver-1-of-4`, `plan`, `workers`).
            wait_s: Seconds to wait for another holder.
            shared: Let other shared holders in.

        Raises:
            JobError: Another process holds the lock.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.locks / name, os.O_RDWR | os.O_CREAT, 0o644)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        deadline = time.monotonic() + wait_s
        try:
            while True:
                try:
                    fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() >= deadline:
                        raise JobError(
                            f"another run is at work on '{self.place.shown}' (lock {name}); "
                            "let it finish or stop it first."
                        ) from error
                    time.sleep(0.05)
            with self.place.guard(name, wait_s):
                yield
        finally:
            os.close(descriptor)

    def open_journal(self, name: str) -> Journal:
        """Open the journal of one writer.

        Args:
            name: Its name, such as `1-of-4-worker-0`.

        Raises:
            JobError: The disk is full or gone.
        """
        path = self.journal / f"{self.place.journal_name(name)}.jsonl"
        return Journal(path, self.place.journalled)

    def wait_for_orphans(self, shard: str | None) -> None:
        """Wait until the workers of a driver that died have noticed and left.

        Args:
            shard: The part whose workers are meant (`1-of-4`); None for all workers of the job.

        Raises:
            JobError: They are still there after half a minute.
        """
        names = [path.name for path in self.locks.glob("workers-*")]
        if shard is not None:
            names = [name for name in names if name in (f"workers-{shard}", "workers-1-of-1")]
        for name in names:
            with self.lock(name, wait_s=_ORPHAN_WAIT_S):
                pass

    def claim(self, identity: Mapping[str, Any]) -> bool:
        """Write job.json, or check that the one there says the same.

        Args:
            identity: Everything that changes outputs, JSON types only.

        Returns:
            Whether the job is new.

        Raises:
            FingerprintError: The job was begun with something else; the message lists what.
        """
        if not self.exists():
            value = {"fingerprint": hash_json(identity), "identity": dict(identity)}
            atomic_write_json(self.job, value)
            return True
        known = self.read_identity()
        if hash_json(known) != hash_json(identity):
            lines = "\n".join(f"  {line}" for line in differences(known, identity))
            raise FingerprintError(
                f"the job in '{self.place.shown}' was begun with other options or another model:\n"
                f"{lines}\nUse the same ones to resume, another -o, or --overwrite to begin anew."
            )
        return False

    def kind(self) -> Kind:
        """Return the kind of the job that was begun here; of one that names none, the first.

        Raises:
            JobError: job.json cannot be read, or names a job that this release does not know.
        """
        named = self.read_identity().get("job", KINDS[0]) if self.exists() else KINDS[0]
        return kind_named(str(named))

    def read_request(self) -> JobOptions:
        """Return the options of the last run.

        Raises:
            JobError: They are missing or of another version.
        """
        try:
            row = json.loads(self.request.read_text(encoding="utf-8"))
            return self.kind().options(**{name: _thaw(value) for name, value in row.items()})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise JobError(f"'{self.request}' cannot be read: {error}.") from error

    def read_identity(self) -> dict[str, Any]:
        """Return what job.json says the job was begun with.

        Raises:
            JobError: job.json is not what this package writes.
        """
        try:
            value = json.loads(self.job.read_text(encoding="utf-8"))
            return dict(value["identity"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JobError(
                f"'{self.job}' cannot be read: {error}; --overwrite begins the job anew."
            ) from error


def folder_of(options: JobOptions, part: str, run: str = "") -> JobFolder:
    """Return the folder of a job that is to be run.

    Args:
        options: What was asked for.
        part: Names the driver (`1-of-4`).
        run: Of a driver's `place`, for its workers; empty for the driver itself.

    Raises:
        ConfigError: The output is behind a URL that cannot be used for it.
        MissingExtra: The output is behind a URL, and fsspec is not installed.
    """
    output = plain_path(options.output)
    if not is_url(output):
        return JobFolder(Path(output))
    from speechadapt.jobs.place_remote import SplitPlace, StoredPlace

    state = plain_path(options.job_folder)
    place = SplitPlace(output, Path(state)) if state else StoredPlace(output, part, run)
    return JobFolder(place.folder, place)


def find_folder(where: str | Path) -> JobFolder:
    """Return the folder of a job that was begun.

    Args:
        where: Its output folder, its URL, or its `--job-folder`.

    Raises:
        ConfigError: It is behind a URL that cannot be used for it.
        MissingExtra: It is behind a URL, and fsspec is not installed.
        StoreError: The store is out of reach.
    """
    text = plain_path(str(where))
    if not is_url(text):
        folder = JobFolder(Path(text))
        output = _stored_output(folder)
        if output is None:
            return folder
        from speechadapt.jobs.place_remote import SplitPlace

        return JobFolder(folder.output, SplitPlace(output, folder.output))
    from speechadapt.jobs.place_remote import StoredPlace

    place = StoredPlace(text, "look")
    place.pull()
    return JobFolder(place.folder, place)


def _stored_output(folder: JobFolder) -> str | None:
    """Return the URL of the outputs where only the state lies in a folder."""
    try:
        output = json.loads(folder.request.read_text(encoding="utf-8"))["output"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return output if isinstance(output, str) and is_url(output) else None


def _thaw(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def differences(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the settings in which two identities differ, one readable line each.

    Args:
        known: The identity on disk.
        now: The identity of this run.

    Returns:
        Lines such as `options.beam_size: 5 there, 1 now`.
    """
    before, after = _flatten(known), _flatten(now)
    return [
        f"{name}: {before.get(name, 'absent')} there, {after.get(name, 'absent')} now"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, part in value.items():
        if isinstance(part, Mapping):
            flat |= _flatten(part, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = repr(part)
    return flat
