"""A quick stand-in for a restorer: it halves what it hears, and waits or fails where it is told to.

The job itself is under test here, so restoring must be fast and a function of the samples alone.
Environment variables make it slow or bad: `FAKE_PAUSE_S`, `FAKE_FAIL_AT_HZ`, `FAKE_DIE_AT_HZ`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import soxr

from speechadapt.jobs.restore_options import RestoreOptions
from speechadapt.restoration.request import Length, RestoreConfig

HOOK = f"{__file__}:make"


class Halver:
    input_rate = 16000

    def __init__(self, options: RestoreOptions) -> None:
        self.options = options

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "halver", "model": self.options.model}

    def channel(
        self, blocks: Iterable[np.ndarray], length: Length, config: RestoreConfig
    ) -> Iterator[np.ndarray]:
        heard = np.concatenate(list(blocks))
        time.sleep(float(os.environ.get("FAKE_PAUSE_S", "0")))
        pitch = str(int(np.abs(np.fft.rfft(heard, 16000)).argmax()))
        if os.environ.get("FAKE_FAIL_AT_HZ") == pitch:
            raise ValueError("this pitch hurts")
        if os.environ.get("FAKE_DIE_AT_HZ") == pitch:
            os.kill(os.getpid(), signal.SIGKILL)
        made = soxr.resample(0.5 * heard, 16000, length.output_rate).astype(np.float32)
        made = np.pad(made[: length.restored], (0, max(0, length.restored - len(made))))
        for start in range(0, len(made), 5000):
            yield made[start : start + 5000]


def make(options: RestoreOptions) -> Halver:
    return Halver(options)
