"""A stack of ConvNeXt blocks at the frame rate: what both vocoders look at their features with.

Source: Vocos, https://arxiv.org/abs/2306.00814 section 3.1; the blocks of
    https://arxiv.org/abs/2201.03545 in one dimension.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.core.shapes import Frames


class ConvNextBlock(nn.Module):
    """Depthwise convolution, norm, a feed-forward three times as wide, scaled, and the input.

    Args:
        width: Channels.
        kernel: Frames the convolution sees.
        scale: Where the trained scale of the branch starts.
    """

    def __init__(self, width: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, frames: Frames) -> Frames:
        """Add the branch to the frames.

        Args:
            frames: At any rate.
        """
        seen = self.depthwise(frames.transpose(1, 2)).transpose(1, 2)
        branch: Tensor = self.down(functional.gelu(self.up(self.norm(seen))))
        return frames + self.scale * branch


class FrameNet(nn.Module):
    """Frames of an encoder, made denser in time and looked at in their surroundings.

    Args:
        dim: Width of the encoder's frames.
        width: Channels inside and of the result.
        layers: Blocks.
        kernel: Frames a convolution sees, an odd number.
        upsample: Frames of the result for each of the encoder's, by linear interpolation.
    """

    def __init__(self, dim: int, width: int, layers: int, kernel: int, upsample: int) -> None:
        super().__init__()
        self.upsample = upsample
        self.enter = nn.Conv1d(dim, width, kernel, padding=kernel // 2)
        self.first_norm = nn.LayerNorm(width, eps=1e-6)
        self.layers = nn.ModuleList(
            ConvNextBlock(width, kernel, 1 / max(layers, 1)) for _ in range(layers)
        )
        self.last_norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, frames: Frames) -> Float[Tensor, "batch dense width"]:
        """Return `upsample` frames for each one.

        Args:
            frames: Of the encoder.
        """
        channels = self.enter(denser(frames, self.upsample).transpose(1, 2))
        dense = self.first_norm(channels.transpose(1, 2))
        for block in self.layers:
            dense = block(dense)
        result: Tensor = self.last_norm(dense)
        return result


def denser(frames: Frames, factor: int) -> Float[Tensor, "batch dense dim"]:
    """Interpolate frames linearly in time; a frame's values stand at its middle.

    Args:
        frames: At any rate.
        factor: New frames for each old one.
    """
    if factor == 1:
        return frames
    wide = functional.interpolate(
        frames.transpose(1, 2), scale_factor=float(factor), mode="linear", align_corners=False
    )
    return wide.transpose(1, 2)
