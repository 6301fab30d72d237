"""Let an encoder hear clips of a length it was not trained on: low-rank stem, re-trained norms.

    stem convolution:   y' = y + (alpha / r) up(down(x))      y = W * x + b
    norm:               y' = y (1 + a) + c                    y: the norm's output

`up`, `a` and `c` start at zero, so nothing changes at first, and all of it merges. Trained with
clips at their native length to match the frozen encoder on the same clips padded to its window, it
makes up for the silence that the encoder misses. Without stem convolutions (w2v-BERT) the norms
alone change; on an audio spectrogram transformer the stem is what cuts the patches.

Source: https://arxiv.org/abs/2403.02084 section 3
Reference: https://github.com/bytedance/res-adapter/blob/35bff98/README.md (what the files hold)
Differs: made for image size there, for the length of recordings here. The norms' change is kept
    apart from the frozen norms, so that one file holds everything and taking it off restores the
    encoder. The norm that closes the encoder stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters import norms
from speechadapt.adapters.blocks import check_width
from speechadapt.adapters.lowrank import (
    Factors,
    LowRank,
    LowRankAdapter,
    scaling,
    weight_delta,
)
from speechadapt.adapters.norms import NormAdapter
from speechadapt.adapters.spec import Context, Method, WeightDelta
from speechadapt.core.errors import SiteError
from speechadapt.core.limits import Count, Positive
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class NativeLengthConfig:
    """Settings of the change to stem and norms.

    Args:
        rank: r, inner width of the change at a stem convolution.
        alpha: What multiplies it, times 1 / r.
    """

    rank: Count = 16
    alpha: Positive = 16.0


class NativeLengthAdapter(LowRankAdapter):
    """The change at one stem convolution or one norm.

    Args:
        site: A `stem.conv` or a `norm`.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is something else.
        ConfigError: The rank is above what the convolution allows.
    """

    def __init__(
        self, site: Site, config: NativeLengthConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.scale = scaling(config.alpha, config.rank, rank_stabilised=False)
        self.change = _change(site, config.rank)

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Return the changed output.

        Args:
            x: Input of the convolution or the norm.
            y: Its output: `[batch, frames, dim]` of a norm, `[batch, channels, time]` of a
                convolution, `[batch, channels, frequency, time]` of one that cuts patches.
            context: Not needed: the encoder zeroes the stem's output past a clip's end.
        """
        if isinstance(self.change, NormAdapter):
            return self.change.leave(x, y, context)
        changed: Tensor = y + self.change(x, self.scale)
        return changed

    def delta(self, module: nn.Module) -> WeightDelta:
        """Return what merging adds to the convolution or to the norm's gain and shift."""
        if isinstance(self.change, NormAdapter):
            return norms.weight_delta(self.change, module)
        return _factors(self.change, self.scale).delta()

    def factors(self, module: nn.Module) -> Factors | None:
        """Return the product at a convolution; None at a norm."""
        if isinstance(self.change, NormAdapter):
            return None
        return _factors(self.change, self.scale)


class PatchChange(nn.Module):
    """A low-rank change of a convolution that cuts patches from a picture.

    Args:
        channels: Channels of the picture.
        dim: Width of a patch's embedding.
        rank: Inner width.
        kernel: Taps along frequency and time.
        stride: Steps along frequency and time.
        padding: Zeros around the picture.
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        rank: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.down = nn.Parameter(torch.empty(rank, channels, *kernel))
        self.up = nn.Parameter(torch.zeros(dim, rank, 1, 1))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(
        self, picture: Float[Tensor, "batch channels _ _"], scale: float = 1.0
    ) -> Float[Tensor, "batch dim _ _"]:
        """Return what is added to the patches' embeddings.

        Args:
            picture: `[batch, channels, frequency, time]`.
            scale: What multiplies it.
        """
        narrow = functional.conv2d(picture, self.down, stride=self.stride, padding=self.padding)
        return functional.conv2d(narrow * scale, self.up)


def _factors(change: LowRank | PatchChange, scale: float) -> Factors:
    return Factors(change.down, change.up, scale)


def _change(site: Site, rank: int) -> LowRank | PatchChange | NormAdapter:
    if _is_norm(site):
        return NormAdapter(site)
    conv = site.conv
    if conv is None or not site.role.startswith("stem.conv."):
        raise SiteError(
            f"adapter 'native_length' changes stem convolutions and norms, but '{site.role}' is a "
            f"{site.kind}. Choose roles such as stem.conv.* and norm.*, or the method 'lora'."
        )
    check_width("rank", rank, min(site.dim_in * _taps(site), site.dim_out))
    if conv.across is None:
        return LowRank(site.dim_in, site.dim_out, rank, conv)
    kernel, stride = (conv.across[0], conv.kernel), (conv.across[1], conv.stride)
    return PatchChange(site.dim_in, site.dim_out, rank, kernel, stride, conv.padding)


def _is_norm(site: Site) -> bool:
    return site.kind == "LayerNorm" and site.read == site.write


def _taps(site: Site) -> int:
    if site.conv is None:
        return 1
    return site.conv.kernel * (site.conv.across[0] if site.conv.across else 1)


def parameters(site: Site, config: NativeLengthConfig) -> int:
    """Count 2 d at a norm, and r (in * taps + out) at a convolution."""
    if _is_norm(site):
        return 2 * site.dim_out
    return config.rank * (site.dim_in * _taps(site) + site.dim_out)


METHOD = Method(
    config=NativeLengthConfig,
    adapter=NativeLengthAdapter,
    roles=("stem.conv.*?", "norm.*"),
    source="https://arxiv.org/abs/2403.02084 section 3",
    tiny=NativeLengthConfig(rank=2, alpha=2.0),
    parameters=parameters,
    weight_delta=weight_delta,
)
