"""Two low-rank heads around a frozen weight: one sees its input, the other sees its output.

    y = W0 x + b0,   y' = y + s (B A x + b) + s D C y
    merged: W = W0 + s B A + s D C W0,   b' = b0 + s D C b0 + s b

The parallel head (A, B) learns what the frozen map lacks, the sequential head (C, D) mixes its
features anew. B and D start at zero. At a convolution A has its kernel, C a single tap.

Source: https://arxiv.org/abs/2309.06922 section 3
Reference: https://github.com/extremebird/Hydra/blob/4138457/vtab1k/hydra.py
Differs: one optional bias where the reference has four, which add up to one in the merged weight;
    no dropout between the maps; every site merges with its own frozen weight, where the
    reference merges the attention's projection from the feed-forward's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechadapt.adapters.lowrank import (
    Factors,
    LowRank,
    LowRankAdapter,
    Stream,
    bias_of,
    check_bias,
    check_rank,
    is_depthwise,
    num_parameters,
    weight_delta,
    weight_of,
)
from speechadapt.adapters.spec import Context, Method, WeightDelta
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.limits import Count, Positive
from speechadapt.encoders.sites import ConvShape, Site


@dataclass(frozen=True)
class HydraHeadsConfig:
    """Settings of the two heads.

    Args:
        parallel_rank: Inner width of the head that sees the input.
        sequential_rank: Inner width of the head that sees the output.
        scale: s, what multiplies both.
        bias: Whether a bias is trained too; only where the frozen module has one.
    """

    parallel_rank: Count = 4
    sequential_rank: Count = 4
    scale: Positive = 1.0
    bias: bool = False


class HydraHeadsAdapter(LowRankAdapter):
    """The two heads at one site.

    Args:
        site: A linear map or a convolution of one dimension, but no depthwise one.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is of another kind.
        ConfigError: A rank is above what the site allows.
    """

    def __init__(self, site: Site, config: HydraHeadsConfig, shared: nn.Module | None) -> None:
        super().__init__()
        check_rank(site, config.parallel_rank, "parallel_rank")
        if is_depthwise(site):
            raise SiteError(
                f"hydra_heads was asked for at '{site.role}', a depthwise convolution, whose "
                "kernel cannot hold a mixture of channels. Choose conv.pw1 or conv.pw2."
            )
        if config.sequential_rank > site.dim_out:
            raise ConfigError(
                f"adapter.sequential_rank must be between 1 and {site.dim_out} (the width written "
                f"at '{site.role}'), got {config.sequential_rank}."
            )
        self.role = site.role
        self.scale = config.scale
        self.parallel = LowRank(
            site.dim_in, site.dim_out, config.parallel_rank, site.conv, config.bias
        )
        one_tap = None if site.conv is None else ConvShape(kernel=1)
        self.sequential = LowRank(site.dim_out, site.dim_out, config.sequential_rank, one_tap)

    def leave(self, x: Stream, y: Stream, context: Context) -> Stream:
        """Add both heads to the output.

        Args:
            x: Input of the site.
            y: Its output.
            context: Not read.
        """
        added: Stream = self.parallel(x, self.scale) + self.sequential(y, self.scale)
        return y + added

    def delta(self, module: nn.Module) -> WeightDelta:
        """Return the change of weight and bias (see `LowRankAdapter`)."""
        return self.factors(module).delta()

    def factors(self, module: nn.Module) -> Factors:
        """Return both heads as one product (see `LowRankAdapter`)."""
        weight = weight_of(module).to(self.parallel.down)
        read_through = self.sequential.down.flatten(1) @ weight.flatten(1)
        return Factors(
            down=torch.cat([self.parallel.down, read_through.reshape(-1, *weight.shape[1:])]),
            up=torch.cat([self.parallel.up, self.sequential.up], dim=1),
            scale=self.scale,
            bias=self._bias(bias_of(module)),
        )

    def _bias(self, frozen: Tensor | None) -> Tensor | None:
        if frozen is None:
            return self.parallel.bias
        remixed: Tensor = self.sequential.weight().flatten(1) @ frozen.to(self.sequential.up)
        return remixed if self.parallel.bias is None else remixed + self.parallel.bias


def _prepare(adapter: HydraHeadsAdapter, module: nn.Module) -> None:
    if adapter.parallel.bias is not None:
        check_bias(adapter.role, module)


def _count(site: Site, config: HydraHeadsConfig) -> int:
    sequential = 2 * config.sequential_rank * site.dim_out
    return num_parameters(site, config.parallel_rank, config.bias) + sequential


METHOD = Method(
    config=HydraHeadsConfig,
    adapter=HydraHeadsAdapter,
    roles=("attn.out", "ffn.down", "conv.pw2?"),
    source="https://arxiv.org/abs/2309.06922",
    tiny=HydraHeadsConfig(parallel_rank=2, sequential_rank=2),
    parameters=_count,
    prepare=_prepare,
    weight_delta=weight_delta,
)
