"""A quick stand-in for a model: it names the pitch and length of what it hears.

The job itself is under test here, so decoding must be fast and a function of the samples alone.
Environment variables make it slow or bad: `FAKE_PAUSE_S`, `FAKE_FAIL_AT_HZ`, `FAKE_DIE_AT_HZ`,
`FAKE_HANG_AT_HZ`, `FAKE_OOM_ABOVE` (clips in a batch); `FAKE_BATCH_SHOWS` lets the batch's
size show in the probabilities.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechadapt.decoders.base import Hypothesis, Word, compression_ratio
from speechadapt.jobs.options import TranscribeOptions

RATE = 16000
HOOK = f"{__file__}:make"


class PitchRecogniser:
    sample_rate = RATE
    window_s = 4.0
    language = "en"

    def __init__(self, options: TranscribeOptions) -> None:
        self.options = options

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "pitch", "model": self.options.model}

    def decode_batch(
        self, waveforms: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Hypothesis]:
        time.sleep(float(os.environ.get("FAKE_PAUSE_S", "0")))
        if len(waveforms) > int(os.environ.get("FAKE_OOM_ABOVE", "1000000")):
            raise RuntimeError("CUDA out of memory. Tried to allocate more than there is.")
        # Real arithmetic may differ in the last bits between batches; here it differs plainly.
        shows = 0.01 * len(waveforms) if os.environ.get("FAKE_BATCH_SHOWS") else 0.0
        return [self._hear(waveform, 0.8012 - shows) for waveform in waveforms]

    def _hear(self, waveform: np.ndarray, probability: float) -> Hypothesis:
        assert len(waveform) <= self.window_s * RATE
        pitch, seconds = str(pitch_hz(waveform)), len(waveform) / RATE
        if os.environ.get("FAKE_FAIL_AT_HZ") == pitch:
            raise ValueError("this pitch hurts")
        if os.environ.get("FAKE_DIE_AT_HZ") == pitch:
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("FAKE_HANG_AT_HZ") == pitch:
            time.sleep(60)
        words = [f"p{pitch}", f"l{round(seconds * 100)}"]
        return Hypothesis(
            text=" ".join(words),
            words=(
                Word(words[0], 0.0, seconds / 2, 0.9012),
                Word(words[1], seconds / 2, seconds, probability),
            ),
            avg_logprob=-0.1,
            compression_ratio=compression_ratio(" ".join(words)),
        )


def pitch_hz(waveform: np.ndarray) -> int:
    return int(np.abs(np.fft.rfft(waveform, RATE)).argmax())


def make(options: TranscribeOptions) -> PitchRecogniser:
    return PitchRecogniser(options)


def write_tone(path: Path, pitch: int, seconds: float) -> None:
    """Write a tone; mechanics only, it stands for no speech."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * time_s), RATE)


def write_tones(folder: Path, count: int) -> None:
    """Write a small tree of tones of different lengths, in two folders."""
    for number in range(count):
        place = folder / ("deep/er" if number % 3 == 0 else "") / f"clip{number:02d}.wav"
        write_tone(place, 200 + 10 * number, 0.3 + 0.07 * (number * 5 % count))
