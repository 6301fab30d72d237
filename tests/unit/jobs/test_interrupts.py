from __future__ import annotations

import os
import signal
import threading

import pytest

from speechadapt.jobs.interrupts import Interrupts


def test_the_first_signal_is_noted_and_said_once():
    said: list[str] = []
    with Interrupts(said.append) as interrupts:
        assert interrupts.exit_code is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.caught == signal.SIGTERM
        assert interrupts.exit_code == 143
    assert len(said) == 1


def test_the_second_signal_ends_at_once():
    with Interrupts(lambda text: None) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.exit_code == 130


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(lambda text: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def run() -> None:
        with Interrupts(lambda text: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
