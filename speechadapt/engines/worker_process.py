"""What runs inside a worker process of the process engine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from speechadapt.engines.base import Outcome, Unit, Worker, WorkerFactory
from speechadapt.engines.serial import run_unit

_ORPHAN_POLL_S = 0.2


def serve(connection: Connection, factory: WorkerFactory, number: int, parent: int) -> None:
    """Build a worker, then take units from the parent until it says stop or goes away.

    Signals of the terminal or the scheduler are left to the parent; if the parent disappears, the
    process ends at once, so that nobody else's run meets a worker of a dead one.

    Args:
        connection: The pipe to the parent.
        factory: Builds the worker.
        number: The worker's number.
        parent: The parent's process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        worker = factory(number)
    except Exception as error:
        connection.send(("failed", f"{type(error).__name__}: {error}"))
        return
    connection.send(("ready", None))
    try:
        _take_units(connection, worker)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    finally:
        worker.close()


def _take_units(connection: Connection, worker: Worker) -> None:
    waiting: deque[tuple[Unit, Future[Any]]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as executor:
        while True:
            while not waiting or connection.poll():
                message: Unit | str = connection.recv()
                if isinstance(message, Unit):
                    waiting.append((message, executor.submit(worker.prepare, message)))
                elif message == "drain":
                    for unit, future in waiting:
                        future.cancel()
                        connection.send(("dropped", unit.index))
                    waiting.clear()
                else:
                    return
            unit, future = waiting.popleft()
            connection.send(("started", unit.index))
            _reply(connection, run_unit(worker, unit, future))


def _reply(connection: Connection, outcome: Outcome) -> None:
    try:
        connection.send(("outcome", outcome))
    except OSError:
        raise
    except Exception as error:
        text = f"the result cannot be sent to the parent: {error}"
        connection.send(("outcome", Outcome(outcome.unit, "raised", message=text)))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_ORPHAN_POLL_S)
    os._exit(1)
