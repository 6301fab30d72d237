"""Low-rank adaptation: a frozen weight gets the product of two thin matrices added to it.

    y' = y + s * (up (down (dropout x)) + c)          merged: W + s up down, b + s c
    s = alpha / rank, or alpha / sqrt(rank);  down Kaiming-uniform (a = sqrt 5), up = 0, c = 0

At a convolution `down` carries kernel, stride and padding and `up` has one tap. A depthwise kernel
`[channels, 1, taps]` is seen as the matrix `[channels, taps]` and gets such a product too, or a
change of its own for every entry.

Source: https://arxiv.org/abs/2106.09685 section 4.1; https://arxiv.org/abs/2312.03732 for the root.
Reference: https://github.com/huggingface/peft/blob/5d602fdbff/src/peft/tuners/lora/layer.py
Differs: depthwise convolutions can be adapted and merge; a Conformer's pointwise convolutions stand
    among the default roles, since its attention alone holds the smaller part of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.branch import Branch
from speechadapt.adapters.lowrank import (
    LINEAR_ROLES,
    Factors,
    KernelDelta,
    LowRankAdapter,
    build,
    check_bias,
    num_parameters,
    scaling,
    weight_delta,
)
from speechadapt.adapters.spec import Context, Method, WeightDelta
from speechadapt.core.limits import Count, CountOrNone, Positive, Probability
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class LoraConfig:
    """Settings of LoRA.

    Args:
        rank: Inner width of the product.
        alpha: Strength: the product is multiplied by alpha / rank.
        rank_stabilised: Divide alpha by the root of the rank instead.
        depthwise_rank: Inner width at depthwise convolutions; 0 changes their kernels entry by
            entry.
        bias: Train a bias beside the product, where the frozen module has one to merge it into.
        dropout: Share of the input's values set to zero on the way to the product, in training.
    """

    rank: Count = 8
    alpha: Positive = 8.0
    rank_stabilised: bool = False
    depthwise_rank: CountOrNone = 0
    bias: bool = False
    dropout: Probability = 0.0


class LoraAdapter(LowRankAdapter):
    """The trained product at one site.

    Args:
        site: A linear map or a convolution of one dimension.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is of another kind.
        ConfigError: The rank is above what the site's weight can have.
    """

    def __init__(self, site: Site, config: LoraConfig, shared: nn.Module | None = None) -> None:
        super().__init__()
        self.role = site.role
        self.change = build(site, config.rank, config.bias, config.depthwise_rank)
        self.scale = scaling(config.alpha, config.rank, config.rank_stabilised)
        self.dropout = config.dropout

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Add the change to the output.

        Args:
            x: Input of the site.
            y: Its output.
            context: Not read.
        """
        if self.dropout:
            x = functional.dropout(x, self.dropout, self.training)
        change = self.change
        if isinstance(change, KernelDelta) or change.conv is not None or change.bias is not None:
            added: Tensor = change(x, self.scale)
            return y + added
        # one kernel for product, scale and sum: nothing of the output's size is kept in between
        narrow = functional.linear(x, change.down)
        total = torch.addmm(
            y.reshape(-1, y.shape[-1]), narrow.flatten(0, -2), change.up.t(), alpha=self.scale
        )
        return total.reshape(y.shape)

    def branch(self) -> Branch | None:
        """Return the product at a linear map (see `Adapter.branch`)."""
        change = self.change
        drops = self.dropout and self.training
        if isinstance(change, KernelDelta) or change.conv is not None or drops:
            return None
        bias = None if change.bias is None else self.scale * change.bias
        return Branch("input", change.down, self.scale * change.up, shift=bias)

    def delta(self, module: nn.Module) -> WeightDelta:
        """Return the change of weight and bias (see `LowRankAdapter`)."""
        bias = None if self.change.bias is None else self.scale * self.change.bias
        return WeightDelta(self.scale * self.change.weight(), bias)

    def factors(self, module: nn.Module) -> Factors | None:
        """Return the product (see `LowRankAdapter`); None where a kernel changes entry by entry."""
        if isinstance(self.change, KernelDelta):
            return None
        return Factors(self.change.down, self.change.up, self.scale, self.change.bias)


def _prepare(adapter: LoraAdapter, module: nn.Module) -> None:
    if adapter.change.bias is not None:
        check_bias(adapter.role, module)


def _count(site: Site, config: LoraConfig) -> int:
    return num_parameters(site, config.rank, config.bias, config.depthwise_rank)


METHOD = Method(
    config=LoraConfig,
    adapter=LoraAdapter,
    roles=LINEAR_ROLES,
    source="https://arxiv.org/abs/2106.09685",
    tiny=LoraConfig(rank=2, alpha=4.0),
    parameters=_count,
    prepare=_prepare,
    weight_delta=weight_delta,
)
