from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from speechadapt.training.interrupts import caught_signals


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let SIGINT act as in a terminal; a shell starts background jobs with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_is_handed_over_and_the_second_acts() -> None:
    numbers: list[int] = []
    with caught_signals(numbers.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert numbers == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert numbers == [signal.SIGINT]


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with caught_signals(lambda number: None):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_nothing_is_caught_outside_the_main_thread() -> None:
    done: list[bool] = []

    def run() -> None:
        with caught_signals(lambda number: None):
            done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [True]
