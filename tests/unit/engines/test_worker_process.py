from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time

from speechadapt.engines.base import Unit
from speechadapt.engines.worker_process import serve


class Echo:
    closed = False

    def prepare(self, unit: Unit) -> int:
        return unit.index

    def process(self, unit: Unit, prepared: int) -> int:
        return prepared

    def close(self) -> None:
        Echo.closed = True


def test_a_worker_says_ready_started_outcome_and_leaves_when_told(monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=serve, args=(theirs, lambda number: Echo(), 0, os.getppid()))
    thread.start()
    assert ours.recv() == ("ready", None)
    ours.send(Unit(5, None))
    assert ours.recv() == ("started", 5)
    word, outcome = ours.recv()
    assert (word, outcome.kind, outcome.value) == ("outcome", "done", 5)
    ours.send("leave")
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert Echo.closed


def test_a_worker_whose_factory_fails_says_why(monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()

    def broken(number: int) -> Echo:
        raise ValueError("no model")

    serve(theirs, broken, 0, os.getppid())
    assert ours.recv() == ("failed", "ValueError: no model")


def test_a_worker_ends_when_its_parent_is_gone():
    program = textwrap.dedent(
        """
        import multiprocessing, os, sys
        from speechadapt.engines.worker_process import serve

        class Idle:
            def close(self): pass

        if __name__ == "__main__":
            ours, theirs = multiprocessing.Pipe()
            child = os.fork()
            if child == 0:
                serve(theirs, lambda number: Idle(), 0, os.getppid())
                os._exit(0)
            assert ours.recv()[0] == "ready"
            print(child, flush=True)
            os._exit(0)
        """
    )
    found = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )
    child = int(found.stdout)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"worker {child} outlived its parent")
