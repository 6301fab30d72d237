"""A scaled bottleneck beside a sub-layer: it reads what goes in and adds to what comes out.

    y' = y + s * (up(activation(down(dropout(norm(u))))))
    u = h, the residual stream before the norm, or x, the sub-layer's own input

`input` says what u is, since published versions differ: `residual` (h as it is), `normed` (x), or
`own_ln` (h through a layer norm of the adapter's own). s is a fixed number, one trained number, or
one per channel (`scale_kind` fixed, learned, channel); trained ones start at `scale`.

Source: https://arxiv.org/abs/2110.04366 section 4 (parallel placement, scaling); Miipher-2,
    https://arxiv.org/abs/2505.04457, adapts its frozen Conformer by parallel adapters.
Reference: https://github.com/jxhe/unify-parameter-efficient-tuning
Differs: the input defaults to the residual stream through an own layer norm, because residual
    streams of speech encoders are large; a scale of 4 as in the source's recipes is left to the
    user. On a Conformer the adapter stands outside the factor of 0.5 of its feed-forwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.blocks import (
    ActivationName,
    Bottleneck,
    InitialName,
    bottleneck_parameters,
    check_frames,
    check_square,
)
from speechadapt.adapters.branch import Branch
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.limits import Count, Probability, Range
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class ParallelConfig:
    """Settings of the parallel adapter.

    Args:
        bottleneck: Width between the two projections; may exceed the site's width, as in the
            source's recipes and in Miipher-2.
        input: What the adapter reads: `residual`, `normed` or `own_ln`.
        scale: What its output is multiplied by, or where a trained scale starts.
        scale_kind: `fixed`, `learned` (one number per site) or `channel` (one per channel).
        activation: The bend between the projections.
        initial: How the projections start, see `blocks.initialise`.
        dropout: Share of the input's values set to zero in training.
    """

    bottleneck: Count = 64
    input: Literal["residual", "normed", "own_ln"] = "own_ln"
    scale: Annotated[float, Range()] = 1.0
    scale_kind: Literal["fixed", "learned", "channel"] = "fixed"
    activation: ActivationName = "relu"
    initial: InitialName = "up_zero"
    dropout: Probability = 0.0


class ParallelAdapter(Adapter):
    """The bottleneck beside one sub-layer.

    Args:
        site: A sub-layer (`attn`, `ffn`, `conv`, `end`) or a linear map.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is a convolution, or reads and writes other widths from its residual
            stream.
    """

    def __init__(self, site: Site, config: ParallelConfig, shared: nn.Module | None = None) -> None:
        super().__init__()
        check_frames(site, "parallel")
        self.taps = config.input != "normed"
        if self.taps:
            check_square(site, "parallel", f"reads the residual stream (input={config.input})")
        self.bottleneck = Bottleneck(
            site.dim_in,
            config.bottleneck,
            site.dim_out,
            config.activation,
            norm=config.input == "own_ln",
            dropout=config.dropout,
            initial=config.initial,
        )
        size = {"fixed": 0, "learned": 1, "channel": site.dim_out}[config.scale_kind]
        self.fixed = config.scale
        self.scale = nn.Parameter(torch.full((size,), config.scale)) if size else None

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Add the bottleneck's output.

        Args:
            x: The residual stream, or the sub-layer's input where `input` is `normed`.
            y: The sub-layer's output.
            context: Not read.
        """
        inner = self.bottleneck
        if self.scale is not None:
            return torch.addcmul(y, inner(x), self.scale.to(y.dtype))
        # scaling the small weight instead of the output saves a pass over it
        bent = inner.activation(inner.down(inner.dropout(inner.norm(x))))
        weight, bias = self.fixed * inner.up.weight, self.fixed * inner.up.bias
        return y + functional.linear(bent, weight, bias)

    def branch(self) -> Branch | None:
        """Return the scaled bottleneck (see `Adapter.branch`)."""
        return self.bottleneck.branch("input", self.fixed if self.scale is None else self.scale)


def _count(site: Site, config: ParallelConfig) -> int:
    norm = config.input == "own_ln"
    scales = {"fixed": 0, "learned": 1, "channel": site.dim_out}[config.scale_kind]
    count = bottleneck_parameters(site.dim_in, config.bottleneck, site.dim_out, norm=norm)
    return count + scales


METHOD = Method(
    config=ParallelConfig,
    adapter=ParallelAdapter,
    roles=("ffn",),
    source="https://arxiv.org/abs/2110.04366",
    tiny=ParallelConfig(bottleneck=4, scale=2.0, scale_kind="channel"),
    parameters=_count,
)
