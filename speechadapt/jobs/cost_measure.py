"""How fast this machine decodes, encodes and restores, for the estimate of a large run."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from speechadapt.audio.span import Signal

_RATE = 16000
_SECONDS = 20.0


@runtime_checkable
class Restores(Protocol):
    """What a restorer is asked here."""

    def restore(self, waveforms: Signal, sample_rate: int, /) -> Signal:
        """Restore a recording."""
        ...


def measure_codec(seconds: float = 60.0) -> tuple[float, float]:
    """Measure FLAC on one core.

    Args:
        seconds: Length of the made signal.

    Returns:
        Seconds to decode and to encode a second of audio at 16 kHz.
    """
    import soundfile

    memory = io.BytesIO()
    signal = _made(seconds)

    def encode() -> None:
        memory.seek(0)
        soundfile.write(memory, signal, _RATE, format="FLAC")

    def decode() -> None:
        memory.seek(0)
        soundfile.read(memory, dtype="float32")

    encode_s = _fastest(encode)
    return _fastest(decode) / seconds, encode_s / seconds


def measure_restorer(restorer: Restores, seconds: float = _SECONDS) -> float:
    """Measure a restorer as it stands, on one recording at a time, after one to warm up.

    Args:
        restorer: The restorer, on its device.
        seconds: Length of the made signal.

    Returns:
        Seconds for a second of audio.
    """
    signal = _made(seconds)
    restorer.restore(signal[:_RATE], _RATE)
    return _fastest(lambda: restorer.restore(signal, _RATE), 2) / seconds


def _made(seconds: float) -> Signal:
    random = np.random.default_rng(0)
    count = int(seconds * _RATE)
    swell = np.abs(np.sin(np.arange(count) / _RATE * 4))
    return (0.1 * swell * random.standard_normal(count)).astype(np.float32)


def _fastest(call: Callable[[], object], times: int = 3) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)
