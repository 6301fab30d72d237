"""Discriminators of waveforms: several scales of time, periods, and resolutions of the spectrum.

Sources: the scales of MelGAN, https://arxiv.org/abs/1910.06711 section 2.2, as WaveFit has them;
    the periods of HiFi-GAN, https://arxiv.org/abs/2010.05646 section 2.3; the resolutions of
    UnivNet, https://arxiv.org/abs/2106.07889 section 2.2, as Vocos has them.
Differs: resolutions read real and imaginary parts with the magnitude's square root in its place, so
    that phases and quiet high bins count too, and convolve along time alone, with the bins as
    channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from speechadapt.core.limits import Count, CountOrNone
from speechadapt.core.shapes import Waveforms

_SLOPE = 0.2
_LEAST = 1e-6


@dataclass(frozen=True)
class DiscriminatorConfig:
    """How many discriminators of what size.

    Args:
        scales: Scales, each at half the rate of the one before.
        scale_channels: Channels of their first layer; each of the next four has four times as many.
        most_channels: Most channels of theirs; where there are many, the last layers cost most.
        periods: One discriminator for each period, in samples.
        period_channels: Channels of their first layer.
        resolutions: One discriminator for each length of the Fourier transform, in samples, hops
            being a quarter of it.
        resolution_channels: Channels of their layers.
    """

    scales: CountOrNone = 3
    scale_channels: Count = 16
    most_channels: Count = 1024
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: Count = 32
    resolutions: tuple[int, ...] = ()
    resolution_channels: Count = 96

    def problems(self) -> list[str]:
        """Say which settings cannot be built."""
        found = []
        if not (self.scales or self.periods or self.resolutions):
            found.append("there must be a scale, a period or a resolution.")
        if min(self.periods, default=1) < 1:
            found.append("periods must be 1 or more.")
        if min(self.resolutions, default=16) < 16:
            found.append("resolutions must be 16 samples or more.")
        return found


@dataclass(frozen=True)
class Judged:
    """What one discriminator made of one batch.

    Args:
        verdict: Its last layer: above 0 for what it takes for real.
        features: The layers before, first to last.
    """

    verdict: Tensor
    features: tuple[Tensor, ...]


class _Layers(nn.Module):
    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(weight_norm(layer) for layer in layers)

    def forward(self, signal: Tensor) -> Judged:
        features = []
        for layer in self.convolutions[:-1]:
            signal = functional.leaky_relu(layer(signal), _SLOPE)
            features.append(signal)
        return Judged(self.convolutions[-1](signal), tuple(features))


def _scale_layers(channels: int, most: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv1d(1, channels, 15, padding=7)]
    for _ in range(4):
        wide = min(4 * channels, most)
        layers.append(nn.Conv1d(channels, wide, 41, 4, 20, groups=max(1, channels // 4)))
        channels = wide
    layers.append(nn.Conv1d(channels, channels, 5, padding=2))
    layers.append(nn.Conv1d(channels, 1, 3, padding=1))
    return layers


def _period_layers(channels: int) -> list[nn.Module]:
    widths = [1, channels, 4 * channels, 16 * channels, 32 * channels]
    layers: list[nn.Module] = [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in pairwise(widths)]
    layers.append(nn.Conv2d(widths[-1], widths[-1], (5, 1), padding=(2, 0)))
    layers.append(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))
    return layers


def _resolution_layers(fft: int, channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv1d(fft + 2, channels, 3, padding=1)]
    layers += [nn.Conv1d(channels, channels, 5, padding=2) for _ in range(3)]
    layers.append(nn.Conv1d(channels, 1, 3, padding=1))
    return layers


class Discriminators(nn.Module):
    """All discriminators of a run.

    Args:
        config: How many of what size.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.periods = config.periods
        self.by_scale = nn.ModuleList(
            _Layers(_scale_layers(config.scale_channels, config.most_channels))
            for _ in range(config.scales)
        )
        self.by_period = nn.ModuleList(
            _Layers(_period_layers(config.period_channels)) for _ in config.periods
        )
        self.resolutions = config.resolutions
        self.by_resolution = nn.ModuleList(
            _Layers(_resolution_layers(fft, config.resolution_channels))
            for fft in config.resolutions
        )

    def forward(self, waveforms: Waveforms) -> list[Judged]:
        """Judge waveforms.

        Args:
            waveforms: Signals of one length.

        Returns:
            What every discriminator made of them.
        """
        found = []
        current = waveforms[:, None]
        for number, scale in enumerate(self.by_scale):
            if number:
                current = functional.avg_pool1d(current, 4, 2, 1, count_include_pad=False)
            found.append(scale(current))
        for period, judge in zip(self.periods, self.by_period, strict=True):
            found.append(judge(_folded(waveforms, period)))
        for fft, judge in zip(self.resolutions, self.by_resolution, strict=True):
            found.append(judge(_compressed(waveforms, fft)))
        return found


def _folded(waveforms: Waveforms, period: int) -> Tensor:
    missing = -waveforms.shape[1] % period
    padded = functional.pad(waveforms, (0, missing))
    return padded.reshape(len(padded), 1, -1, period)


def _compressed(waveforms: Waveforms, fft: int) -> Float[Tensor, "batch values times"]:
    """Return real and imaginary parts of a spectrum, its magnitude's square root in its place."""
    window = torch.hann_window(fft, device=waveforms.device, dtype=waveforms.dtype)
    spectrum = torch.stft(
        waveforms, fft, fft // 4, window=window, pad_mode="constant", return_complex=True
    )
    parts = torch.view_as_real(spectrum)
    # the root has no gradient at zero
    root = (parts.square().sum(-1, keepdim=True) + _LEAST).pow(-0.25)
    return torch.cat((parts * root).unbind(-1), dim=1)
