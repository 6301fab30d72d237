"""The network inside WaveFit: what is wrong with a waveform, given features of the speech.

A U-net after WaveGrad (arXiv 2009.00713, section 3): features are widened to the sample rate in
steps, and at every step a FiLM adds what the down path has seen of the current waveform.

Source: WaveFit, https://arxiv.org/abs/2210.01029 section 4.2.
Differs: as in Miipher-2's variant, interpolation where WaveGrad transposes convolutions, no FiLM at
    the sample rate, and FiLMs that shift and do not scale (both are settings).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.core.shapes import Waveforms

_SLOPE = 0.2
_LONGEST_PERIOD = 5000.0


def _conv(channels_in: int, channels_out: int, dilation: int = 1, kernel: int = 3) -> nn.Conv1d:
    padding = dilation * (kernel // 2)
    return nn.Conv1d(channels_in, channels_out, kernel, dilation=dilation, padding=padding)


def _bent(signal: Tensor) -> Tensor:
    return functional.leaky_relu(signal, _SLOPE)


def iteration_code(index: float, dim: int, device: torch.device) -> Float[Tensor, " dim"]:
    """Return sines and cosines of an iteration's index.

    Args:
        index: The index; the first of T iterations has T, the last has 1.
        dim: Values, an even number.
        device: Where.
    """
    half = dim // 2
    speeds = torch.exp(-math.log(10000.0) * torch.arange(half, device=device) / half)
    angles = index * (_LONGEST_PERIOD / 100) * speeds
    return torch.cat([angles.sin(), angles.cos()])


class Film(nn.Module):
    """What the down path adds to the up path at one resolution.

    Args:
        channels_in: Of the down path.
        channels_out: Of the up path.
        scales: Whether it also scales.
    """

    def __init__(self, channels_in: int, channels_out: int, scales: bool) -> None:
        super().__init__()
        self.enter = _conv(channels_in, channels_in)
        self.iteration = nn.Linear(2 * ((channels_in + 1) // 2), channels_in)
        self.shift = _conv(channels_in, channels_out)
        self.scale = _conv(channels_in, channels_out) if scales else None

    def forward(
        self, seen: Float[Tensor, "batch channels times"], index: float
    ) -> tuple[Tensor | None, Tensor]:
        """Return scale (None for one) and shift.

        Args:
            seen: What the down path saw.
            index: The iteration.
        """
        code = iteration_code(index, self.iteration.in_features, seen.device).to(seen.dtype)
        inner = _bent(self.enter(seen)) + self.iteration(code)[None, :, None]
        return None if self.scale is None else self.scale(inner), self.shift(inner)


def _filmed(signal: Tensor, film: tuple[Tensor | None, Tensor] | None) -> Tensor:
    if film is None:
        return signal
    scale, shift = film
    return signal + shift if scale is None else signal * (1 + scale) + shift


class UpBlock(nn.Module):
    """A step up in time: four dilated convolutions in two residual halves.

    Args:
        channels_in: Channels before.
        channels_out: Channels after.
        factor: Samples for each one before.
        dilations: Of the four convolutions.
    """

    def __init__(
        self, channels_in: int, channels_out: int, factor: int, dilations: Sequence[int]
    ) -> None:
        super().__init__()
        self.factor = factor
        self.skip = _conv(channels_in, channels_out, kernel=1)
        self.convs = nn.ModuleList(
            _conv(channels_in if number == 0 else channels_out, channels_out, dilation)
            for number, dilation in enumerate(dilations)
        )

    def forward(
        self,
        signal: Float[Tensor, "batch channels times"],
        film: tuple[Tensor | None, Tensor] | None,
    ) -> Tensor:
        """Widen a signal.

        Args:
            signal: At the lower rate.
            film: Scale and shift at the higher rate; None adds nothing.
        """
        first, second, third, fourth = self.convs
        wide = functional.interpolate(_bent(signal), scale_factor=float(self.factor))
        inner = second(_bent(_filmed(first(wide), film)))
        # a 1x1 convolution and repetition commute, and the order here is the cheap one
        skip = functional.interpolate(self.skip(signal), scale_factor=float(self.factor))
        inner = inner + skip
        more = third(_bent(_filmed(inner, film)))
        result: Tensor = inner + fourth(_bent(_filmed(more, film)))
        return result


class DownBlock(nn.Module):
    """A step down in time: three dilated convolutions beside a skip.

    Args:
        channels_in: Channels before.
        channels_out: Channels after.
        factor: Samples averaged to one.
    """

    def __init__(self, channels_in: int, channels_out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.skip = _conv(channels_in, channels_out, kernel=1)
        self.convs = nn.ModuleList(
            _conv(channels_in if number == 0 else channels_out, channels_out, dilation)
            for number, dilation in enumerate((1, 2, 4))
        )

    def forward(self, signal: Float[Tensor, "batch channels times"]) -> Tensor:
        """Narrow a signal.

        Args:
            signal: A whole number of `factor` samples.
        """
        low = functional.avg_pool1d(signal, self.factor)
        inner = low
        for conv in self.convs:
            inner = conv(_bent(inner))
        result: Tensor = inner + self.skip(low)
        return result


class WaveFitNet(nn.Module):
    """Frames and the current waveform in, what to take off the waveform out.

    Args:
        width: Channels of the frames.
        factors: Steps up in time, from frames to samples.
        channels: Channels after each step.
        down_channels: Channels of the down path: at the sample rate, then after each step down.
        film_scales: FiLMs also scale.
        film_at_rate: There is a FiLM at the sample rate too.
    """

    def __init__(
        self,
        width: int,
        factors: Sequence[int],
        channels: Sequence[int],
        down_channels: Sequence[int],
        film_scales: bool,
        film_at_rate: bool,
    ) -> None:
        super().__init__()
        before = [width, *channels[:-1]]
        self.ups = nn.ModuleList(
            UpBlock(a, b, factor, (1, 2, 4, 8) if number < 3 else (1, 2, 1, 2))
            for number, (a, b, factor) in enumerate(zip(before, channels, factors, strict=True))
        )
        self.enter = _conv(1, down_channels[0], kernel=5)
        steps = list(reversed(factors[1:]))
        self.downs = nn.ModuleList(
            DownBlock(a, b, factor)
            for a, b, factor in zip(down_channels, down_channels[1:], steps, strict=False)
        )
        # the coarsest view of the waveform goes to the first step up
        self.films = nn.ModuleList(
            Film(seen, made, film_scales)
            for number, (seen, made) in enumerate(
                zip(reversed(down_channels), channels, strict=True)
            )
            if film_at_rate or number < len(channels) - 1
        )
        self.leave = _conv(channels[-1], 1)

    def forward(
        self,
        waveforms: Waveforms,
        frames: Float[Tensor, "batch width frames"],
        index: float,
    ) -> Waveforms:
        """Return the difference between the waveform and a better one.

        Args:
            waveforms: The current ones.
            frames: What the speech is like.
            index: The iteration.
        """
        seen = [self.enter(waveforms[:, None])]
        for down in self.downs:
            seen.append(down(seen[-1]))
        signal = frames
        for number, up in enumerate(self.ups):
            film = None
            if number < len(self.films):
                film = self.films[number](seen[-1 - number], index)
            signal = up(signal, film)
        result: Tensor = self.leave(_bent(signal))[:, 0]
        return result
