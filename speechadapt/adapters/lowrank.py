"""Low-rank changes of a frozen weight: linear maps, convolutions of one dimension, depthwise ones.

    change(x) = scale * (up (down x) + bias)          merged: W + scale * up down, b + scale * bias

`down` starts Kaiming-uniform (a = sqrt 5) and `up` at zero. A convolution's `down` carries the
kernel, stride and padding, its `up` has one tap. Seen as a matrix `[out, in * kernel]` every weight
is changed by one product; a depthwise kernel `[channels, 1, kernel]` is the matrix
`[channels, kernel]`, changed by such a product or, since it is small, entry by entry.

Source: https://arxiv.org/abs/2106.09685 section 4.1
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.spec import Adapter, WeightDelta
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site

Stream: TypeAlias = Float[Tensor, "batch _ _"]  # frames and width, or channels and time

# Every linear map and pointwise convolution of a layer: where low-rank methods stand by themselves.
LINEAR_ROLES = (
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.out",
    "ffn.up",
    "ffn.down",
    "conv.pw1?",
    "conv.pw2?",
)


@dataclass(frozen=True)
class Factors:
    """A weight change in the form other tools store.

    Args:
        down: `[rank, in]`, at a convolution `[rank, in, kernel]`.
        up: `[out, rank]`, at a convolution `[out, rank, 1]`.
        scale: What multiplies the product and the bias.
        bias: `[out]`, or None.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """Inner width of the product."""
        return int(self.down.shape[0])

    def delta(self) -> WeightDelta:
        """Return the change of weight and bias."""
        bias = None if self.bias is None else self.scale * self.bias
        return WeightDelta(self.scale * product_weight(self.down, self.up), bias)


class LowRankAdapter(Adapter, ABC):
    """An adapter whose whole effect is a change of the frozen weight that it can name."""

    @abstractmethod
    def delta(self, module: nn.Module) -> WeightDelta:
        """Return the change of weight and bias.

        Args:
            module: The frozen module at the site.
        """

    @abstractmethod
    def factors(self, module: nn.Module) -> Factors | None:
        """Return the change as one product against the frozen weight; None where it is none.

        Args:
            module: The frozen module at the site.
        """


def weight_delta(adapter: LowRankAdapter, module: nn.Module) -> WeightDelta:
    """Return what merging adds to `module`; the `weight_delta` of a low-rank method."""
    return adapter.delta(module)


class LowRank(nn.Module):
    """The trainable product at a site, or between given widths.

    Args:
        dim_in: Width, or channels, it reads.
        dim_out: Width, or channels, it writes.
        rank: Inner width, within what `rank_limit` allows.
        conv: Shape of the convolution; None for a linear map. Groups are 1 or the channels.
        bias: Whether a bias, starting at zero, is added after `up`.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        rank: int,
        conv: ConvShape | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.rank = rank
        taps = () if conv is None else (conv.kernel,)
        groups = 1 if conv is None else conv.groups
        self.down = nn.Parameter(torch.empty(rank, dim_in // groups, *taps))
        self.up = nn.Parameter(torch.zeros(dim_out, rank, *(1 for _ in taps)))
        self.bias = nn.Parameter(torch.zeros(dim_out)) if bias else None
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Stream, scale: float = 1.0) -> Stream:
        """Return the change of the site's output for its input `x`.

        Args:
            x: `[batch, frames, dim_in]`, at a convolution `[batch, dim_in, time]`.
            scale: What multiplies it all.
        """
        bias = None if self.bias is None else scale * self.bias
        return product(x, self.down, self.up, self.conv, scale, bias)

    def weight(self) -> Tensor:
        """Return the product in the shape of the frozen weight, unscaled."""
        return product_weight(self.down, self.up)


class KernelDelta(nn.Module):
    """The trainable change of a depthwise kernel, entry by entry.

    Args:
        channels: Channels of the convolution.
        conv: Its shape, with as many groups as channels.
        bias: Whether a bias, starting at zero, is added.
    """

    def __init__(self, channels: int, conv: ConvShape, bias: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.kernel = nn.Parameter(torch.zeros(channels, 1, conv.kernel))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(
        self, x: Float[Tensor, "batch channels _"], scale: float = 1.0
    ) -> Float[Tensor, "batch channels _"]:
        """Return the change of the convolution's output for its input `x`.

        Args:
            x: Input of the convolution.
            scale: What multiplies it all.
        """
        bias = None if self.bias is None else scale * self.bias
        return _depthwise(x, scale * self.kernel, bias, self.conv)

    def weight(self) -> Float[Tensor, "channels 1 kernel"]:
        """Return the change of the kernel, unscaled."""
        return self.kernel


def product(
    x: Stream,
    down: Tensor,
    up: Tensor,
    conv: ConvShape | None = None,
    scale: float = 1.0,
    bias: Tensor | None = None,
) -> Stream:
    """Return `scale * up (down x) + bias` at a linear map or a convolution.

    Args:
        x: `[batch, frames, in]`, at a convolution `[batch, in, time]`.
        down: `[rank, in]`, at a convolution `[rank, in / groups, kernel]`.
        up: `[out, rank]`, at a convolution `[out, rank, 1]`.
        conv: Shape of the convolution; None at a linear map.
        scale: What multiplies the product.
        bias: `[out]`.
    """
    if conv is None:
        return functional.linear(functional.linear(x, down) * scale, up, bias)
    if conv.groups > 1:
        return _depthwise(x, scale * product_weight(down, up), bias, conv)
    narrow = functional.conv1d(x, down, stride=conv.stride, padding=conv.padding)
    return functional.conv1d(narrow * scale, up, bias)


def product_weight(down: Tensor, up: Tensor) -> Tensor:
    """Return up times down in the shape of the frozen weight: `[out, *down.shape[1:]]`."""
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def build(
    site: Site, rank: int, bias: bool = False, depthwise_rank: int = 0
) -> LowRank | KernelDelta:
    """Return the trainable change for a site.

    Args:
        site: A linear map or a convolution that reads and writes the same module.
        rank: Inner width, wherever the module is not depthwise.
        bias: Whether the change has a bias.
        depthwise_rank: Inner width at a depthwise convolution; 0 changes the kernel entry by entry.

    Raises:
        SiteError: The site is of another kind.
        ConfigError: The rank is above what the site allows.
    """
    if not is_depthwise(site):
        check_rank(site, rank)
        return LowRank(site.dim_in, site.dim_out, rank, site.conv, bias)
    assert site.conv is not None
    if depthwise_rank == 0:
        check_site(site)
        return KernelDelta(site.dim_out, site.conv, bias)
    check_rank(site, depthwise_rank, "depthwise_rank")
    return LowRank(site.dim_in, site.dim_out, depthwise_rank, site.conv, bias)


def num_parameters(site: Site, rank: int, bias: bool = False, depthwise_rank: int = 0) -> int:
    """Return the number of trainable parameters of `build` with the same arguments."""
    biases = site.dim_out if bias else 0
    taps = 1 if site.conv is None else site.conv.kernel
    if not is_depthwise(site):
        return rank * (site.dim_in * taps + site.dim_out) + biases
    if depthwise_rank == 0:
        return site.dim_out * taps + biases
    return depthwise_rank * (taps + site.dim_out) + biases


def scaling(alpha: float, rank: int, rank_stabilised: bool) -> float:
    """Return alpha / rank or, rank-stabilised, alpha / sqrt(rank).

    Source: https://arxiv.org/abs/2312.03732 for the root.
    """
    return alpha / (math.sqrt(rank) if rank_stabilised else rank)


def is_depthwise(site: Site) -> bool:
    """Return whether the site is a convolution with one group per channel."""
    return site.conv is not None and site.conv.groups > 1 and site.conv.groups == site.dim_in


def rank_limit(site: Site) -> int:
    """Return the rank of the site's weight seen as a matrix, which no change needs to exceed."""
    if site.conv is None:
        return min(site.dim_in, site.dim_out)
    return min(site.dim_in // site.conv.groups * site.conv.kernel, site.dim_out)


def check_site(site: Site) -> None:
    """Refuse a site whose weight cannot be changed by a product.

    Raises:
        SiteError: It is no linear map and no one-dimensional convolution, a span of several
            modules, or a convolution in groups of several channels.
    """
    if site.read != site.write:
        found = f"is a span from {site.read} to {site.write}"
    elif site.kind not in ("Linear", "Conv1d") or (site.kind == "Conv1d" and site.conv is None):
        found = f"is a {site.kind}"
    elif site.conv is not None and site.conv.groups > 1 and not is_depthwise(site):
        found = f"is a convolution in {site.conv.groups} groups of several channels"
    else:
        return
    raise SiteError(
        f"a low-rank change was asked for at '{site.role}', which {found}. Choose linear maps and "
        "one-dimensional convolutions, such as attn.q, ffn.up or conv.pw1."
    )


def check_rank(site: Site, rank: int, setting: str = "rank") -> None:
    """Refuse a rank that the site's weight cannot have, or a site that has none.

    Args:
        site: Where the change is to be.
        rank: Inner width asked for.
        setting: Its name in the adapter's config.

    Raises:
        ConfigError: The rank is below 1 or above `rank_limit`.
        SiteError: See `check_site`.
    """
    check_site(site)
    most = rank_limit(site)
    if not 1 <= rank <= most:
        raise ConfigError(
            f"adapter.{setting} must be between 1 and {most} (the rank of the weight at "
            f"'{site.role}'), got {rank}."
        )


def check_bias(role: str, module: nn.Module) -> None:
    """Refuse a trained bias where the frozen module has none to merge it into.

    Raises:
        ConfigError: The module has no bias.
    """
    if bias_of(module) is None:
        raise ConfigError(
            f"adapter.bias=true was asked for at '{role}', whose module has no bias to merge it "
            "into. Set adapter.bias=false or leave that role out."
        )


def weight_of(module: nn.Module) -> Tensor:
    """Return the frozen weight of a linear map or a convolution."""
    weight: Any = module.weight
    assert isinstance(weight, Tensor)
    return weight


def bias_of(module: nn.Module) -> Tensor | None:
    """Return the frozen bias of a linear map or a convolution, None where it has none."""
    bias: Any = module.bias
    assert bias is None or isinstance(bias, Tensor)
    return bias


def _depthwise(x: Stream, kernel: Tensor, bias: Tensor | None, conv: ConvShape) -> Stream:
    return functional.conv1d(
        x, kernel, bias, stride=conv.stride, padding=conv.padding, groups=conv.groups
    )
