"""The light vocoder: one complex spectrum a frame, and its inverse transform.

Source: Vocos, https://arxiv.org/abs/2306.00814 section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from speechadapt.core.limits import Count, Range
from speechadapt.core.shapes import Frames, Waveforms
from speechadapt.restoration.frame_net import FrameNet
from speechadapt.restoration.spectra import framed_waveforms
from speechadapt.restoration.vocoder import Speech, Vocoder, gain_adjusted

_LOUDEST = 100.0


@dataclass(frozen=True)
class IstftConfig:
    """Shape of the inverse-STFT vocoder.

    Args:
        width: Channels of the blocks.
        layers: Blocks.
        kernel: Frames a convolution sees, an odd number.
        upsample: Spectra for each of the encoder's frames.
        overlap: Windows that cover a sample.
    """

    width: Count = 256
    layers: Count = 6
    kernel: Count = 7
    upsample: Count = 1
    overlap: Annotated[int, Range(2.0, 8.0)] = 4

    def problems(self) -> list[str]:
        """Say which settings cannot be built."""
        even = self.kernel % 2 == 0
        return [f"kernel must be odd, got {self.kernel}."] if even else []


class IstftVocoder(Vocoder):
    """ConvNeXt blocks at the frame rate, heads for magnitude and phase, an inverse STFT.

    Args:
        speech: Its two sides.
        config: Its shape.

    Raises:
        ConfigError: A frame does not last a whole, even number of samples.
    """

    kind = "istft"

    def __init__(self, speech: Speech, config: IstftConfig) -> None:
        super().__init__()
        self.speech = speech
        self.config: IstftConfig = config
        self.hop = speech.dense_hop(config.upsample)
        self.fft = config.overlap * self.hop
        self.net = FrameNet(speech.dim, config.width, config.layers, config.kernel, config.upsample)
        self.head = nn.Linear(config.width, self.fft + 2)

    def forward(
        self, frames: Frames, iterations: int | None = None, random: torch.Generator | None = None
    ) -> list[Waveforms]:
        """Return one waveform, whatever the number of iterations; nothing about it is random.

        Args:
            frames: Of the encoder.
            iterations: Not read.
            random: Not read.
        """
        heights, phases = self.head(self.net(frames)).transpose(1, 2).float().chunk(2, dim=1)
        magnitude = heights.exp().clamp(max=_LOUDEST)
        spectrum = torch.complex(magnitude * phases.cos(), magnitude * phases.sin())
        return [gain_adjusted(framed_waveforms(spectrum, self.fft, self.hop))]
