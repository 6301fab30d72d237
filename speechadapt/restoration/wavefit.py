"""WaveFit: a waveform improved step by step towards a fixed point.

    y_T = initial signal;  y_(t-1) = gain(y_t - G(y_t, features, t)),  t = T ... 1

Every y is a result that is trained as such, so fewer iterations than in training are the first ones
of them. The gradient does not cross from one iteration to the one before.

Source: WaveFit, https://arxiv.org/abs/2210.01029 sections 3 and 4; as the vocoder of Miipher-2,
    https://arxiv.org/abs/2505.04457.
Differs: ConvNeXt blocks look at the features before the U-net, where Miipher-2 has Conformer
    blocks; `initial=envelope` shapes noise by an envelope predicted from the features, with its
    phase left as it is, where WaveFit takes a minimum-phase filter from a mel spectrogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from speechadapt.core.errors import ConfigError
from speechadapt.core.limits import Count, CountOrNone, Range
from speechadapt.core.shapes import Frames, Waveforms
from speechadapt.restoration.envelope import Envelope
from speechadapt.restoration.frame_net import FrameNet
from speechadapt.restoration.istft import IstftConfig, IstftVocoder
from speechadapt.restoration.vocoder import Speech, Vocoder, gain_adjusted
from speechadapt.restoration.wavefit_net import WaveFitNet


@dataclass(frozen=True)
class WaveFitConfig:
    """Shape of a WaveFit vocoder; the defaults are those of the source at 24 kHz from 25 Hz.

    Args:
        upsample: Frames interpolated from each of the encoder's.
        factors: Steps up from those frames to samples; their product is a frame's samples.
        channels: Channels after each step.
        down_channels: Channels of the path down: at the sample rate, then after each step.
        width: Channels of the blocks before the network.
        layers: Blocks before the network.
        iterations: Iterations in training, and where nobody asks for another number.
        initial: What the first iteration starts from: `noise`, noise shaped by a predicted
            `envelope`, or the waveform of a trained inverse-STFT vocoder (`istft`), which is part
            of this one and stays frozen.
        istft: Shape of that vocoder.
        bands: Bands of the envelope.
        film_scales: Whether FiLMs also scale, as in WaveGrad.
        film_at_rate: Whether there is a FiLM at the sample rate, as in WaveGrad.
    """

    upsample: Count = 4
    factors: tuple[int, ...] = (5, 4, 3, 2, 2)
    channels: tuple[int, ...] = (512, 512, 256, 128, 128)
    down_channels: tuple[int, ...] = (32, 128, 128, 256, 512)
    width: Count = 512
    layers: CountOrNone = 4
    iterations: Annotated[int, Range(1.0, 50.0)] = 5
    initial: Literal["noise", "envelope", "istft"] = "noise"
    istft: IstftConfig = field(default_factory=IstftConfig)
    bands: Count = 40
    film_scales: bool = False
    film_at_rate: bool = False

    def problems(self) -> list[str]:
        """Say which settings cannot be built."""
        sizes = len(self.factors), len(self.channels), len(self.down_channels)
        found = []
        if len(set(sizes)) > 1 or not sizes[0]:
            found.append(
                "factors, channels and down_channels must be as many as there are steps, got "
                f"{sizes[0]}, {sizes[1]} and {sizes[2]}."
            )
        if min((*self.factors, *self.channels, *self.down_channels), default=1) < 1:
            found.append("factors, channels and down_channels must be 1 or more.")
        return found


class WaveFitVocoder(Vocoder):
    """A fixed-point iteration from noise, or from another vocoder's waveform, to speech.

    Args:
        speech: Its two sides.
        config: Its shape.

    Raises:
        ConfigError: The steps up do not give a frame's samples.
    """

    kind = "wavefit"

    def __init__(self, speech: Speech, config: WaveFitConfig) -> None:
        super().__init__()
        self.speech = speech
        self.config: WaveFitConfig = config
        self.iterations = config.iterations
        hop = speech.dense_hop(config.upsample)
        if math.prod(config.factors) != hop:
            raise ConfigError(
                f"wavefit.factors {list(config.factors)} make {math.prod(config.factors)} samples "
                f"of a frame, but it lasts {hop} at {speech.sample_rate} Hz with "
                f"upsample={config.upsample}."
            )
        self.frame_net = FrameNet(speech.dim, config.width, config.layers, 7, config.upsample)
        self.net = WaveFitNet(
            config.width,
            config.factors,
            config.channels,
            config.down_channels,
            config.film_scales,
            config.film_at_rate,
        )
        shaped, started = config.initial == "envelope", config.initial == "istft"
        self.envelope = Envelope(config.width, config.bands, hop) if shaped else None
        self.start = IstftVocoder(speech, config.istft) if started else None
        if self.start is not None:
            self.start.requires_grad_(False)

    def forward(
        self, frames: Frames, iterations: int | None = None, random: torch.Generator | None = None
    ) -> list[Waveforms]:
        """Return the waveform after every iteration.

        Args:
            frames: Of the encoder.
            iterations: How many; beyond those of training the last one's index is repeated.
            random: Draws the initial noise.
        """
        looked = self.frame_net(frames)
        current = self.initial(frames, looked, random)
        seen = looked.transpose(1, 2)
        found = []
        for number in range(self.iterations if iterations is None else iterations):
            index = float(max(self.iterations - number, 1))
            current = current.detach()
            current = gain_adjusted(current - self.net(current, seen, index))
            found.append(current)
        return found

    def initial(self, frames: Frames, looked: Tensor, random: torch.Generator | None) -> Waveforms:
        """Return what the first iteration starts from.

        Args:
            frames: Of the encoder.
            looked: What the blocks before the network made of them.
            random: Draws the noise.
        """
        if self.start is not None:
            started: Tensor = self.start(frames)[0]
            return started
        batch, samples = frames.shape[0], frames.shape[1] * self.speech.hop
        noise = torch.randn(batch, samples, generator=random, device=_device(random, frames))
        noise = noise.to(frames.device)
        if self.envelope is None:
            return noise
        return gain_adjusted(self.envelope.shaped(noise, looked))

    def auxiliary_loss(self, frames: Frames, waveforms: Waveforms) -> Tensor | None:
        """Return the error of the predicted envelope; None where nothing predicts one.

        Args:
            frames: Of the encoder.
            waveforms: The clean signals in step with them.
        """
        if self.envelope is None:
            return None
        return self.envelope.error(self.frame_net(frames), waveforms)


def _device(random: torch.Generator | None, frames: Tensor) -> torch.device:
    return frames.device if random is None else random.device
