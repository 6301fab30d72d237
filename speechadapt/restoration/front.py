"""A trained part in front of a frozen encoder: it changes the log-mels that the encoder hears.

Adapters inside the encoder see frames from which the clip's own mean and deviation have been taken
out; what noise has done to those is lost by then. A front reads the log-mels before that
(`statistics.clip_statistics`) and gives the encoder

    statistics     a z + b, with a scale a and a shift b for each mel bin, from the clip's summary
    convolution    z + out(blocks(enter(z) + summary)), ConvNeXt blocks over time that look both
                   ways: each frame is changed by its neighbours and by the clip as a whole

where z are the log-mels as the encoder hears them with no front. Both start as z itself, and fall
back to z where a clip is silent or very short. Both are trained through the encoder: normalised
with the mean and deviation of the clean signal itself, a degraded clip is further from its features
than with its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from speechadapt.core.limits import Count, Positive
from speechadapt.core.shapes import Frames, Lengths, length_mask
from speechadapt.restoration.frame_net import ConvNextBlock
from speechadapt.restoration.statistics import ClipStatistics, clip_statistics, summary_size

FrontKind = Literal["none", "statistics", "convolution"]


@dataclass(frozen=True)
class FrontConfig:
    """What stands in front of the encoder.

    Args:
        kind: `none`, a scale and a shift for each clip (`statistics`), or ConvNeXt blocks
            (`convolution`).
        width: Channels inside.
        layers: Blocks of `convolution`.
        kernel: Frames of the encoder that a convolution sees, an odd number.
        rate: Factor of the learning rate that the front is trained with.
    """

    kind: FrontKind = "none"
    width: Count = 192
    layers: Count = 3
    kernel: Count = 7
    rate: Positive = 0.4

    def problems(self) -> list[str]:
        """Say which settings cannot be built."""
        even = self.kernel % 2 == 0
        return [f"front.kernel must be odd, got {self.kernel}."] if even else []


class Front(nn.Module):
    """A front of either kind.

    Args:
        bins: Mel bins.
        stride: Neighbouring frames that the encoder takes side by side.
        config: Its kind and shape.
    """

    def __init__(self, bins: int, stride: int, config: FrontConfig) -> None:
        super().__init__()
        self.bins, self.stride, self.config = bins, stride, config
        size, width = summary_size(bins), config.width
        self.summary_norm = nn.LayerNorm(size)
        self.summary = nn.Linear(size, width)
        if config.kind == "convolution":
            self.enter = nn.Linear(stride * bins, width)
            self.first_norm = nn.LayerNorm(width)
            self.layers = nn.ModuleList(
                ConvNextBlock(width, config.kernel, 1 / config.layers) for _ in range(config.layers)
            )
        self.last_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * bins if config.kind == "statistics" else stride * bins)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                fan_in = math.prod(module.weight.shape[1:])
                nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.out.weight)

    def forward(self, features: Frames, lengths: Lengths) -> Frames:
        """Return what the encoder is to hear in place of its own features.

        Args:
            features: Log-mels as they are, `stride` frames side by side.
            lengths: Valid rows per clip.

        Returns:
            As many rows, zero past each length.
        """
        batch, frames, stacked = features.shape
        log_mels = features.reshape(batch, frames * self.stride, self.bins)
        found = clip_statistics(log_mels, lengths * self.stride)
        standard = found.standard.reshape(batch, frames, stacked)
        valid = length_mask(lengths, frames)[:, :, None].to(standard.dtype)
        weights = self.out.weight.dtype
        if self.config.kind == "statistics":
            change = self._affine(found, weights).reshape(batch, frames, stacked)
        else:
            change = self._convolved(standard, found.summary, valid, weights)
        trust = found.trust[:, None, None]
        return ((standard + trust * change.float()) * valid).to(weights)

    def _affine(self, found: ClipStatistics, dtype: torch.dtype) -> Tensor:
        known = nn.functional.gelu(self.summary(self.summary_norm(found.summary.to(dtype))))
        scale, shift = self.out(self.last_norm(known)).float()[:, None].chunk(2, dim=2)
        changed: Tensor = found.standard * torch.expm1(scale) + shift
        return changed

    def _convolved(
        self, standard: Frames, summary: Tensor, valid: Tensor, dtype: torch.dtype
    ) -> Frames:
        clip = self.summary(self.summary_norm(summary.to(dtype)))
        states = self.first_norm(self.enter(standard.to(dtype)) + clip[:, None])
        for block in self.layers:
            states = block(states * valid.to(dtype))
        change: Tensor = self.out(self.last_norm(states))
        return change
