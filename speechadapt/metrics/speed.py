"""Time per stage and the real-time factors made of it.

RTF is seconds of work per second of audio; RTFx is its inverse. Two are reported: `model` counts
features, encoder and decoder; the end-to-end one counts the wall clock, reading and writing
included. Warm-up is timed apart and is in neither.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from speechadapt.core.errors import CatalogError, near_misses

STAGES = ("decode", "features", "encoder", "decoder", "write")
MODEL_STAGES = ("features", "encoder", "decoder")


@dataclass(frozen=True)
class Environment:
    """What a speed was measured on.

    Args:
        device: `cpu` or `cuda`, with the accelerator's name where there is one.
        dtype: Number format of the weights.
        threads: torch's threads on the CPU.
        batch: Utterances (or seconds, as the job says) per batch.
        torch: torch's version.
    """

    device: str
    dtype: str
    threads: int
    batch: str
    torch: str

    @property
    def line(self) -> str:
        """The environment in one line."""
        return (
            f"{self.device}, {self.dtype}, {self.threads} threads, batch {self.batch}, "
            f"torch {self.torch}"
        )


def describe_environment(device: Any, dtype: Any, batch: int | str) -> Environment:
    """Read the environment from torch.

    Args:
        device: A torch device or its name.
        dtype: A torch dtype or its name.
        batch: Batch size, or a text that says how batches are made.
    """
    import torch

    place = torch.device(device)
    name = str(place)
    if place.type == "cuda" and torch.cuda.is_available():
        name = f"{place} ({torch.cuda.get_device_name(place)})"
    return Environment(
        device=name,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        batch=str(batch),
        torch=torch.__version__,
    )


@dataclass(frozen=True)
class SpeedReport:
    """Seconds of audio and of work; adds up over workers.

    Args:
        audio_s: Seconds of audio processed after warm-up.
        wall_s: Wall-clock seconds for them.
        stages_s: Seconds by stage, every name of `STAGES`.
        warm_up_s: Seconds spent on warm-up, counted nowhere else.
    """

    audio_s: float
    wall_s: float
    stages_s: Mapping[str, float]
    warm_up_s: float = 0.0

    def __add__(self, other: SpeedReport) -> SpeedReport:
        """Join the report of a worker that ran at the same time: the longer wall clock counts."""
        stages = {name: self.stages_s[name] + other.stages_s[name] for name in STAGES}
        return SpeedReport(
            self.audio_s + other.audio_s,
            max(self.wall_s, other.wall_s),
            stages,
            self.warm_up_s + other.warm_up_s,
        )

    @property
    def model_s(self) -> float:
        """Seconds in features, encoder and decoder."""
        return sum(self.stages_s[name] for name in MODEL_STAGES)

    @property
    def model_rtf(self) -> float:
        """Seconds of model work per second of audio; NaN without audio."""
        return _ratio(self.model_s, self.audio_s)

    @property
    def model_rtfx(self) -> float:
        """Seconds of audio per second of model work; NaN without work."""
        return _ratio(self.audio_s, self.model_s)

    @property
    def rtf(self) -> float:
        """Wall-clock seconds per second of audio; NaN without audio."""
        return _ratio(self.wall_s, self.audio_s)

    @property
    def rtfx(self) -> float:
        """Seconds of audio per wall-clock second; NaN without time."""
        return _ratio(self.audio_s, self.wall_s)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types, NaN as null."""
        rates = {
            "model_rtf": self.model_rtf,
            "model_rtfx": self.model_rtfx,
            "rtf": self.rtf,
            "rtfx": self.rtfx,
        }
        return {
            "audio_s": round(self.audio_s, 3),
            "wall_s": round(self.wall_s, 3),
            "warm_up_s": round(self.warm_up_s, 3),
            "stages_s": {name: round(seconds, 3) for name, seconds in self.stages_s.items()},
            **{name: None if math.isnan(rate) else round(rate, 5) for name, rate in rates.items()},
        }


@dataclass
class StageTimer:
    """Adds up the time of stages; one timer per worker, not shared between threads.

    Args:
        clock: Seconds from anywhere, never going back.
        synchronise: Called at both ends of a stage; on an accelerator
            `torch.cuda.synchronize`, since its work runs on after the call returns.
    """

    clock: Callable[[], float] = time.perf_counter
    synchronise: Callable[[], object] | None = None
    _stages_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _audio_s: float = 0.0
    _warm_up_s: float = 0.0
    _warming: bool = False
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as one stage, also where it raises.

        Raises:
            CatalogError: There is no such stage.
        """
        if name not in STAGES:
            raise CatalogError(f"there is no stage {name!r}.{near_misses(name, STAGES)}")
        begin = self._now()
        try:
            yield
        finally:
            if not self._warming:
                self._stages_s[name] += self._now() - begin

    @contextmanager
    def warm_up(self) -> Iterator[None]:
        """Time a block as warm-up: its stages, audio and wall clock count nowhere else."""
        begin = self._now()
        self._warming = True
        try:
            yield
        finally:
            self._warming = False
            self._warm_up_s += self._now() - begin

    def add_audio(self, seconds: float) -> None:
        """Count seconds of audio as processed; nothing during warm-up."""
        if not self._warming:
            self._audio_s += seconds

    def report(self) -> SpeedReport:
        """Return what was measured since the timer was made, without the warm-up."""
        wall_s = self._now() - self._started - self._warm_up_s
        return SpeedReport(self._audio_s, wall_s, dict(self._stages_s), self._warm_up_s)

    def _now(self) -> float:
        if self.synchronise is not None:
            self.synchronise()
        return self.clock()


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan
