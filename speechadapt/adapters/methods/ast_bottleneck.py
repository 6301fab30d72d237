"""A GELU bottleneck beside or after a sub-layer, with or without a residual inside.

    parallel:     y' = y + B(x)          with the residual: y + B(x) + x
    sequential:   y' = B(y)              with the residual: y + B(y)
    B(u) = up(gelu(down u))              x: input of the sub-layer, y: its output

The roles choose the placement: `ffn` is Pfeiffer's, `attn` and `ffn` are Houlsby's. `up` starts at
zero: parallel without and sequential with the residual change nothing at first; the other two start
from another function (`y + x`, and the sub-layer left out).

Source: https://arxiv.org/abs/2312.03694 section 2
Reference: https://github.com/umbertocappellazzo/PETL_AST/blob/1fe23af/src/AST_adapters.py
    (Bottleneck_adapter)
Differs: there both projections start at zero, so neither ever gets a gradient and the adapter is a
    learned constant; here `up` alone is zero. The layer norms are trained only by the attachment's
    `train_norms`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from speechadapt.adapters.blocks import (
    ActivationName,
    Bottleneck,
    InitialName,
    OrderName,
    bottleneck_parameters,
    check_frames,
    check_square,
    check_width,
    join,
)
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.limits import Count, Probability
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class AstBottleneckConfig:
    """Settings of the bottleneck of the study on audio spectrogram transformers.

    Args:
        bottleneck: Width between the projections, at most the site's; 768 / 64 in the study.
        order: Beside the sub-layer (`parallel`) or after it (`sequential`).
        residual: Whether the branch's input is added to its output; None: only where sequential,
            as the study advises.
        activation: What bends the narrow states.
        initial: How the projections start.
        dropout: Share of the branch's input set to zero in training.
    """

    bottleneck: Count = 12
    order: OrderName = "parallel"
    residual: bool | None = None
    activation: ActivationName = "gelu"
    initial: InitialName = "up_zero"
    dropout: Probability = 0.0


class AstBottleneckAdapter(Adapter):
    """The bottleneck at one sub-layer.

    Args:
        site: A sub-layer as wide where it writes as where it reads; frames, not a convolution.
        config: Its settings.
        shared: Nothing.

    Raises:
        ConfigError: The bottleneck is wider than the site.
        SiteError: The site is a convolution, or its widths differ.
    """

    def __init__(
        self, site: Site, config: AstBottleneckConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_frames(site, "ast_bottleneck")
        check_square(site, "ast_bottleneck", "stands beside or after a whole sub-layer")
        check_width("bottleneck", config.bottleneck, site.dim_out)
        self.order: OrderName = config.order
        sequential = config.order == "sequential"
        self.residual = sequential if config.residual is None else config.residual
        self.bottleneck = Bottleneck(
            site.dim_in,
            config.bottleneck,
            site.dim_out,
            bend=config.activation,
            dropout=config.dropout,
            initial=config.initial,
        )

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Return the sub-layer's output with the bottleneck beside or after it."""
        return join(self.bottleneck, x, y, self.order, self.residual)


def parameters(site: Site, config: AstBottleneckConfig) -> int:
    """Count 2 d r + r + d at a site of width d."""
    return bottleneck_parameters(site.dim_in, config.bottleneck, site.dim_out)


METHOD = Method(
    config=AstBottleneckConfig,
    adapter=AstBottleneckAdapter,
    roles=("ffn",),
    source="https://arxiv.org/abs/2312.03694 section 2",
    tiny=AstBottleneckConfig(bottleneck=4),
    parameters=parameters,
    learning_rate=5e-3,
)
