"""What every vocoder offers: frames of an encoder in, a waveform in step with them out.

A vocoder knows no level, because the features have none: every waveform it gives is scaled to the
same peak, and whoever wants a level sets it afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.core.errors import ConfigError
from speechadapt.core.shapes import Frames, Waveforms

PEAK = 0.9
_LEAST = 1e-8


@dataclass(frozen=True)
class Speech:
    """The two sides of a vocoder.

    Args:
        dim: Width of the frames.
        frame_rate: Of the frames, in Hz.
        sample_rate: Of the waveforms, in Hz.
    """

    dim: int
    frame_rate: float
    sample_rate: int

    @property
    def hop(self) -> int:
        """Samples for each frame."""
        return round(self.sample_rate / self.frame_rate)

    def dense_hop(self, upsample: int) -> int:
        """Return the samples for each frame after interpolation.

        Args:
            upsample: New frames for each old one.

        Raises:
            ConfigError: That is no whole, even number.
        """
        if self.hop % (2 * upsample):
            raise ConfigError(
                f"upsample={upsample} was asked for, but a frame lasts {self.hop} samples at "
                f"{self.sample_rate} Hz; an upsampled one must last an even number."
            )
        return self.hop // upsample


class Vocoder(nn.Module, ABC):
    """A waveform from frames.

    Attributes:
        kind: Name of the class in saved files.
        speech: Its two sides.
        config: Its settings, a frozen dataclass.
        iterations: How many waveforms it gives where nobody asks for another number.
    """

    kind: str
    speech: Speech
    config: Any
    iterations: int = 1

    @abstractmethod
    def forward(
        self, frames: Frames, iterations: int | None = None, random: torch.Generator | None = None
    ) -> list[Waveforms]:
        """Return the waveform after every iteration, the last one being the result.

        Args:
            frames: Of the encoder.
            iterations: How many; None takes `iterations`.
            random: Draws the initial noise; None draws from torch's global stream.
        """

    def auxiliary_loss(self, frames: Frames, waveforms: Waveforms) -> Tensor | None:
        """Return a loss of a part that no waveform shows; None where there is none.

        Args:
            frames: Of the encoder.
            waveforms: The clean signals in step with them.
        """
        return None


def gain_adjusted(waveforms: Waveforms) -> Waveforms:
    """Scale every row to a peak of 0.9; silence stays silence.

    Source: Miipher-2, https://arxiv.org/abs/2505.04457.

    Args:
        waveforms: Signals.
    """
    return waveforms * (PEAK / (waveforms.abs().amax(dim=1, keepdim=True) + _LEAST))
