"""A claim on work whose state lies in an object store, where there are no locks and no renames.

Claims are numbered objects. The highest number holds; whoever wants the work and finds the highest
given back, or not heard of for long enough, makes the next number, which the store lets one of
several do. So nobody ever deletes a claim that may have become another's. The holder writes its
object again as a heartbeat and notices a higher number. Times are compared by the store's clock.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

from speechadapt.core.errors import JobError
from speechadapt.core.storage import Store
from speechadapt.jobs.lease import LAPSE_S, process_runs

_POLL_S = 0.5


class ObjectLease:
    """A claim by this process, held from `with` to its end.

    Args:
        store: The store; it decides who makes an object (see `Store.conditional`).
        folder: The claim's folder in the store.
        work: What is claimed, for the message to others.
        lapse_s: Seconds without a heartbeat after which others may take it over; heartbeats come
            four times as often. All who meet at a folder give the same.
        wait_s: Seconds to wait for another holder.

    Raises:
        JobError: On entering, where another process holds it.
    """

    def __init__(
        self, store: Store, folder: str, work: str, lapse_s: float = LAPSE_S, wait_s: float = 0.0
    ) -> None:
        self._store, self._folder, self._work = store, folder, work
        self._lapse_s, self._wait_s = lapse_s, wait_s
        self._facts = {
            "token": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._name = ""
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether somebody else took it over, or the store is out of reach."""
        return self._lost.is_set()

    def __enter__(self) -> ObjectLease:
        deadline = time.monotonic() + self._wait_s
        while not self._claim():
            if time.monotonic() >= deadline:
                raise JobError(
                    f"another run is at work on {self._work}: {self._holder()}. Let it finish or "
                    f"stop it first; a run that died is taken over after {self._lapse_s:g} s."
                )
            time.sleep(_POLL_S)
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
        if self._lost.is_set():
            return
        try:
            self._write({"token": self._facts["token"], "free": True})
        except OSError:
            return  # it lapses

    def _claim(self) -> bool:
        """Make the next number where the last one is nobody's."""
        known = self._store.names(self._folder)
        if known and holder_of(self._store, self._folder, self._lapse_s) is not None:
            return False
        number = int(_stem(known[-1])) + 1 if known else 1
        self._name = f"{self._folder}/{number:08d}.json"
        if not self._store.create(self._name, _to_bytes(self._facts)):
            return False
        if self._store.names(self._folder)[-1] != self._name:
            self._store.delete([self._name])  # others came and went since the look
            return False
        self._store.delete(known)
        return True

    def _holder(self) -> str:
        facts = holder_of(self._store, self._folder, self._lapse_s) or {}
        return f"process {facts.get('pid', '?')} on {facts.get('host', 'an unknown host')}"

    def _beat(self) -> None:
        heard = time.monotonic()
        while not self._ended.wait(self._lapse_s / 4):
            try:
                if self._store.names(self._folder)[-1:] != [self._name]:
                    self._lost.set()
                    return
                self._write(self._facts)
                heard = time.monotonic()
            except OSError:
                if time.monotonic() - heard > self._lapse_s:
                    self._lost.set()
                    return

    def _write(self, facts: dict[str, Any]) -> None:
        self._store.put(self._name, _to_bytes(facts))


def holder_of(store: Store, folder: str, lapse_s: float = LAPSE_S) -> dict[str, Any] | None:
    """Return the facts of who holds a claim; None where nobody does any more.

    Args:
        store: The store.
        folder: The claim's folder in the store.
        lapse_s: See `ObjectLease`.
    """
    known = store.names(folder)
    if not known:
        return None
    try:
        facts = json.loads(store.read(known[-1]))
        age_s = _age_s(store, folder, known[-1])
    except FileNotFoundError:
        return holder_of(store, folder, lapse_s)  # its holder has just made way for the next
    if facts.get("free") or age_s > lapse_s:
        return None
    if facts.get("host") == socket.gethostname() and not process_runs(facts.get("pid")):
        return None
    return dict(facts)


def _age_s(store: Store, folder: str, name: str) -> float:
    """Return seconds since a file was written, both ends by the store's clock."""
    clock = f"{folder}.clocks/{uuid.uuid4().hex}"
    store.put(clock, b"")
    try:
        return store.modified_s(clock) - store.modified_s(name)
    finally:
        store.delete([clock])


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _to_bytes(facts: dict[str, Any]) -> bytes:
    return (json.dumps(facts) + "\n").encode()
