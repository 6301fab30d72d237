"""How fast a run was: the model alone and end to end, and on what."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path
from typing import Any

from speechadapt.jobs.job_options import JobOptions
from speechadapt.jobs.load import chosen_device, chosen_dtype
from speechadapt.jobs.run import UnitResult
from speechadapt.metrics.speed import Environment, describe_environment

_IMPORTED = time.time()


@dataclass(frozen=True)
class RunSpeed:
    """Seconds of one run.

    RTF is seconds of work per second of audio, RTFx its inverse.

    Args:
        audio_s: Seconds of audio that went through the model.
        model_s: Seconds of the model for it, first batches included.
        warm_up_audio_s: Seconds of audio in each worker's first batch.
        warm_up_s: Seconds of the model for those first batches.
        decode_s: Seconds of reading and decoding, beside the model.
        write_s: Seconds of writing.
        wall_s: Seconds from the start of the process to the end of the work.
        workers: Workers that ran at the same time.
        environment: Device, dtype, threads, batch.
    """

    audio_s: float
    model_s: float
    warm_up_audio_s: float
    warm_up_s: float
    decode_s: float
    write_s: float
    wall_s: float
    workers: int
    environment: Environment

    @property
    def model_rtf(self) -> float | None:
        """RTF of the model after warm-up, in one worker; of everything if there was no more."""
        warm_audio = self.audio_s - self.warm_up_audio_s
        if warm_audio > 0:
            return (self.model_s - self.warm_up_s) / warm_audio
        return self.model_s / self.audio_s if self.audio_s > 0 else None

    @property
    def rtf(self) -> float | None:
        """RTF end to end: from the start of the process, loading and writing included."""
        return self.wall_s / self.audio_s if self.audio_s > 0 else None

    @property
    def warm_up(self) -> str:
        """What the model's figure leaves out, in words."""
        if self.audio_s > self.warm_up_audio_s:
            return f"first batch of each worker left out ({self.warm_up_s:.2f} s)"
        return "first batches included, there were no others"

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return {
            "audio_s": round(self.audio_s, 3),
            "wall_s": round(self.wall_s, 3),
            "model_s": round(self.model_s, 3),
            "decode_s": round(self.decode_s, 3),
            "write_s": round(self.write_s, 3),
            "model": {**rates(self.model_rtf), "warm_up": self.warm_up},
            "end_to_end": {**rates(self.rtf), "from": "start of the process, nothing warm"},
            "workers": self.workers,
            "environment": asdict(self.environment),
        }


def rates(rtf: float | None) -> dict[str, float | None]:
    """Return RTF and RTFx, rounded; None where there was no audio."""
    if rtf is None:
        return {"rtf": None, "rtfx": None}
    return {"rtf": round(rtf, 5), "rtfx": round(1 / rtf, 2) if rtf > 0 else None}


def measure(
    results: Sequence[UnitResult], workers: int, environment: Environment
) -> RunSpeed | None:
    """Add up what the workers measured.

    Args:
        results: Results of a run's units.
        workers: Workers that ran at the same time.
        environment: What they ran on.

    Returns:
        The speed up to now; None where no audio went through the model.
    """
    first = [result for result in results if result.first]
    audio_s = fsum(result.audio_s for result in results)
    if audio_s <= 0:
        return None
    return RunSpeed(
        audio_s=audio_s,
        model_s=fsum(result.model_s for result in results),
        warm_up_audio_s=fsum(result.audio_s for result in first),
        warm_up_s=fsum(result.model_s for result in first),
        decode_s=fsum(result.decode_s for result in results),
        write_s=fsum(result.write_s for result in results),
        wall_s=process_age_s(),
        workers=workers,
        environment=environment,
    )


def describe_run(options: JobOptions) -> Environment:
    """Say what a run was measured on.

    Args:
        options: What was asked for.
    """
    batch = options.batch_note
    if "torch" not in sys.modules:
        threads = options.threads or 1
        return Environment(options.device, options.dtype, threads, batch, "not loaded")
    return describe_environment(chosen_device(options.device), chosen_dtype(options.dtype), batch)


def process_age_s() -> float:
    """Return seconds since this process started (since this module's import where unknown)."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time() - _IMPORTED
