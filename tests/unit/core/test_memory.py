from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from speechadapt.core.memory import resident_bytes

pytestmark = pytest.mark.skipif(
    resident_bytes("VmRSS") is None, reason="this system has no /proc/self/status"
)


def test_what_is_held_is_counted_in_bytes() -> None:
    gc.collect()  # or what earlier tests left may be freed between the two readings
    before = resident_bytes("VmRSS")
    held = bytearray(b"x" * 200_000_000)
    after, peak = resident_bytes("VmRSS"), resident_bytes("VmHWM")
    assert before is not None
    assert after is not None
    assert peak is not None
    assert 190_000_000 < after - before < 400_000_000
    assert peak >= after
    del held


def test_a_peak_does_not_start_at_that_of_the_process_that_started_it() -> None:
    held = bytearray(b"x" * 400_000_000)
    code = "from speechadapt.core.memory import resident_bytes; print(resident_bytes('VmHWM'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1_000_000 < int(told.stdout) < len(held)
