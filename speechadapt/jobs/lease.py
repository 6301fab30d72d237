"""A claim on a piece of work that lapses when its holder is no longer heard of.

A lock of the operating system (`JobFolder.lock`) ends with its process, but not every shared file
system keeps it between hosts. A lease is a file with the holder's name whose time is renewed by a
heartbeat. One that is not renewed for long enough is taken over; its former holder notices at its
next heartbeat and begins nothing more. Times are compared by the file system's own clock, so hosts
need not agree on theirs.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from speechadapt.core.errors import JobError

LAPSE_S = 60.0


class Lease:
    """A claim by this process, held from `with` to its end.

    Args:
        path: The file; its folder is made.
        work: What is claimed, for the message to others.
        lapse_s: Seconds without a heartbeat after which others may take it over; heartbeats come
            four times as often. All who meet at a file give the same.

    Raises:
        JobError: On entering, where another process holds it.
    """

    def __init__(self, path: Path, work: str, lapse_s: float = LAPSE_S) -> None:
        self._path, self._work, self._lapse_s = path, work, lapse_s
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether somebody else took it over."""
        return self._lost.is_set()

    def __enter__(self) -> Lease:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not (self._create() or (self._take_over() and self._create())):
            raise JobError(f"another run is at work on {self._work}: {self._holder()}")
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._beating.join()
        if _read(self._path).get("token") == self._token:
            self._path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Write the file unless there is one."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        facts = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        try:
            os.write(descriptor, (json.dumps(facts) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True

    def _take_over(self) -> bool:
        """Put a lapsed lease aside; of several that try, one succeeds."""
        seen = _read(self._path)
        if not self._lapsed(seen):
            return False
        aside = self._path.with_name(f".{self._path.name}-{self._token}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return True  # somebody was quicker, or the holder left; creating it decides
        if _read(aside) != seen:
            # Between look and rename it became another's: give it back.
            aside.rename(self._path)
            return False
        aside.unlink()
        return True

    def _lapsed(self, facts: dict[str, Any]) -> bool:
        if facts.get("host") == socket.gethostname() and not process_runs(facts.get("pid")):
            return True
        age = self._age_s()
        return age is not None and age > self._lapse_s

    def _age_s(self) -> float | None:
        """Return seconds since the last heartbeat, both ends by the file system's clock."""
        clock = self._path.with_name(f".clock-{self._token}")
        clock.touch()
        try:
            return clock.stat().st_mtime - self._path.stat().st_mtime
        except FileNotFoundError:
            return None
        finally:
            clock.unlink()

    def _holder(self) -> str:
        facts, age = _read(self._path), self._age_s()
        who = f"process {facts.get('pid', '?')} on {facts.get('host', 'an unknown host')}"
        heard = "" if age is None else f", last heard of {max(0.0, age):.0f} s ago"
        return (
            f"{who}{heard}. Let it finish or stop it first; a run that died is taken over after "
            f"{self._lapse_s:g} s."
        )

    def _beat(self) -> None:
        while not self._ended.wait(self._lapse_s / 4):
            if _read(self._path).get("token") != self._token:
                self._lost.set()
                return
            try:
                os.utime(self._path)
            except OSError:
                continue  # the file system may come back before the lease lapses


def _read(path: Path) -> dict[str, Any]:
    """Return what a lease says; nothing where it is gone or only half written."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def process_runs(pid: Any) -> bool:
    """Say whether a process of this host is there; True for what is no process number."""
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
