"""Clean speech and what degradation makes of it, row by row, for the training of restorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from speechadapt.audio.augment import AugmentConfig, Signal
from speechadapt.audio.degrade import Degradation, degrade, preset
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError
from speechadapt.core.limits import Interval, PositiveInterval, Probability
from speechadapt.core.seed import generator
from speechadapt.data.batch import BatchConfig
from speechadapt.training.speech import DataConfig, SpeechBatches


@dataclass(frozen=True)
class SourceConfig:
    """What changes about the clean speech itself.

    Args:
        speed: Lowest and highest playback factor.
        speed_prob: Probability of a changed speed.
        gain_db: Lowest and highest level change.
    """

    speed: PositiveInterval = (0.9, 1.1)
    speed_prob: Probability = 0.5
    gain_db: Interval = (-6.0, 0.0)

    def augment(self) -> AugmentConfig:
        """Return it as settings of `augment_signal` that add nothing to the speech."""
        return AugmentConfig(
            speed=self.speed,
            speed_prob=self.speed_prob,
            gain_db=self.gain_db,
            band_limit_prob=0.0,
            noise_prob=0.0,
            reverb_prob=0.0,
        )


def clean_speech(
    data: DataConfig, batch: BatchConfig, source: SourceConfig, seed: int, sample_rate: int
) -> SpeechBatches:
    """Return the clean recordings of a run, with or without transcripts.

    Args:
        data: What to read.
        batch: Size and mix of the batches.
        source: What changes about the speech.
        seed: Of the whole run.
        sample_rate: Hz.
    """
    return SpeechBatches(data, batch, source.augment(), seed, sample_rate, transcribed=False)


@dataclass(frozen=True)
class DamageConfig:
    """How speech is degraded.

    Args:
        preset: `miipher`, `sidon` or `telephone` (see `audio.degrade`).
        changes: Settings of `audio.degrade.Degradation` that differ from the preset.
    """

    preset: str = "miipher"
    changes: Mapping[str, Any] = field(default_factory=dict)

    def degradation(self) -> Degradation:
        """Return the preset with its changes."""
        return self._bound()[0]

    def problems(self) -> list[str]:
        """Say which settings there are none of, or are out of range."""
        try:
            return self._bound()[1]
        except CatalogError as error:
            return [str(error)]

    def _bound(self) -> tuple[Degradation, list[str]]:
        values = {**asdict(preset(self.preset)), **self.changes}
        return bind(Degradation, values, "damage.changes")


@runtime_checkable
class Sounds(Protocol):
    """What damage is made of, as `SpeechBatches` has it."""

    @property
    def noises(self) -> Sequence[Signal]:
        """Noise recordings."""
        ...

    @property
    def responses(self) -> Sequence[Signal]:
        """Room impulse responses."""
        ...

    sample_rate: int


def damaged(speech: Sounds, signal: Signal, degradation: Degradation, *seed: int | str) -> Signal:
    """Degrade a signal with a run's noises and rooms; equal seeds give equal bytes.

    Args:
        speech: Has the noises and rooms.
        signal: Clean samples at the run's rate.
        degradation: What happens to it.
        seed: Parts of the seed.
    """
    random = generator("damage", *seed)
    rate, noises, rooms = speech.sample_rate, speech.noises, speech.responses
    return degrade(signal, rate, degradation, random, noises, rooms).signal


def as_tensors(signals: Sequence[Signal]) -> list[Tensor]:
    """Return signals as tensors that share no memory with them."""
    return [torch.tensor(signal) for signal in signals]
