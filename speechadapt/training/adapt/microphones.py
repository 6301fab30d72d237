"""Recordings as several microphones hear them: simulated, each with noise and a room of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechadapt.audio.augment import Signal
from speechadapt.core.limits import Count
from speechadapt.core.seed import generator
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.training.adapt.config import TranscribedConfig
from speechadapt.training.adapt.inputs import Features
from speechadapt.training.distil.inputs import DegradeConfig
from speechadapt.training.speech import SpeechBatches, SpeechRow

_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Config(TranscribedConfig):
    """Everything an adaptation to several microphones is made of.

    Args:
        method: The adapter method; one that does not read `recording` hears each by itself.
        microphones: Microphones that hear every recording.
        near: Whether the first is near, so that it hears what nothing was done to, and what is read
            are the others.
        degrade: What reaches a microphone that is not near, drawn anew for each.
    """

    method: str = "channel_attention"
    microphones: Count = 4
    near: bool = False
    degrade: DegradeConfig = field(default_factory=DegradeConfig)

    def problems(self) -> list[str]:
        """Say which settings do not fit one another, the method or the models at hand."""
        found = super().problems()
        if not self.degrade.acts:
            found.append(
                "several microphones were asked for, but degrade changes nothing, so all hear the "
                "same. Set degrade.noise_prob=1 or degrade.reverb_prob=1."
            )
        if self.near and self.microphones < 2:
            found.append("near=true needs microphones=2 or more, of which the first is near.")
        if self.prefix.cache != "none":
            found.append(
                f"prefix.cache={self.prefix.cache} keeps states row by row, but microphones of one "
                "recording meet in every layer. Set prefix.cache=none."
            )
        return found


class Microphones:
    """Makes what every microphone hears of a recording; nothing changes the timing.

    Args:
        speech: Gives noises and rooms.
        config: How many microphones, and what reaches them.
    """

    def __init__(self, speech: SpeechBatches, config: Config) -> None:
        self.speech = speech
        self.number = config.microphones
        self.near = config.near
        self.augment = config.degrade.augment()

    def hear(self, signal: Signal, random: np.random.Generator) -> list[Signal]:
        """Return a recording as each of the microphones hears it.

        Args:
            signal: Its samples.
            random: The only source of randomness.
        """
        seeds = random.integers(_LARGEST_SEED, size=self.number)
        far = [
            self.speech.augmented(signal, self.augment, np.random.default_rng(seed))
            for seed in seeds
        ]
        return [signal, *far[1:]] if self.near else far

    def dev(self, signal: Signal, *parts: str | int) -> list[Signal]:
        """Return a dev recording as the microphones hear it, always the same.

        Args:
            signal: Its samples.
            parts: Which one it is.
        """
        return self.hear(signal, generator("microphones", *parts))

    def recordings(self, rows: int) -> list[int]:
        """Return for each row of a batch the number of its recording.

        Args:
            rows: Rows, those of one recording side by side.
        """
        return [row // self.number for row in range(rows)]

    def read(
        self, frames: Frames, lengths: Lengths
    ) -> tuple[Float[Tensor, "recordings frames dim"], Int[Tensor, " recordings"]]:
        """Return the mean of what the microphones that are read made of each recording.

        Args:
            frames: Of all rows.
            lengths: Valid frames per row, the same for all rows of a recording.
        """
        by_recording = frames.reshape(-1, self.number, *frames.shape[1:])
        return by_recording[:, 1 if self.near else 0 :].mean(1), lengths[:: self.number]


class MicrophoneFeatures:
    """Makes the features of training rows as all microphones hear them, side by side.

    Args:
        microphones: What hears the rows.
        features: Makes the features of one row; what it draws is the same for all microphones.
    """

    def __init__(self, microphones: Microphones, features: Features) -> None:
        self.microphones = microphones
        self.features = features

    def __call__(self, rows: Sequence[SpeechRow], step: int) -> tuple[Tensor, Lengths]:
        """Return features and lengths, `number` rows for each.

        Args:
            rows: Signals.
            step: Training step.
        """
        heard: list[SpeechRow] = []
        for row in rows:
            signals = self.microphones.hear(row.signal, row.random)
            heard += [SpeechRow(one, row.text, copy.deepcopy(row.random)) for one in signals]
        return self.features(heard, step)


def as_clips(signals: Sequence[Signal], device: torch.device) -> list[Tensor]:
    """Return signals as an encoder takes them.

    Args:
        signals: Mono samples.
        device: Where they are to be.
    """
    return [torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in signals]
