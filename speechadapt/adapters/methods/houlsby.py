"""A bottleneck after attention and after every feed-forward, in series with it.

    y' = y + up(g(down(y)))        y: output of the sub-layer, before it meets the residual stream

`up` starts at zero, so nothing changes at first; `initial=near_zero` starts both projections from a
normal distribution of standard deviation 0.001, as published, which changes next to nothing.

Source: https://arxiv.org/abs/1902.00751 section 2.1
Reference: https://github.com/google-research/adapter-bert/blob/1a31fc6/modeling.py
    (feedforward_adapter: GELU, width 64, truncated normal start)
Differs: the exact zero start is the default. The published recipe also trains the layer norms; here
    that is the attachment's `train_norms`, off by default. A Conformer has three adapters per
    layer, one after each feed-forward and one after attention; add the role `conv` for a fourth.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from speechadapt.adapters.blocks import (
    ActivationName,
    Bottleneck,
    InitialName,
    bottleneck_parameters,
    check_frames,
    check_width,
)
from speechadapt.adapters.branch import Branch
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.limits import Count, Probability
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class HoulsbyConfig:
    """Settings of the series adapter.

    Args:
        bottleneck: Width between the projections, at most the site's.
        activation: What bends the narrow states.
        initial: How the projections start; `near_zero` is the published start.
        own_norm: Whether a layer norm of its own comes first.
        dropout: Share of the branch's input set to zero in training.
    """

    bottleneck: Count = 64
    activation: ActivationName = "gelu"
    initial: InitialName = "up_zero"
    own_norm: bool = False
    dropout: Probability = 0.0


class HoulsbyAdapter(Adapter):
    """The bottleneck after one sub-layer.

    Args:
        site: Where it writes; frames, not a convolution.
        config: Its settings.
        shared: Nothing.

    Raises:
        ConfigError: The bottleneck is wider than the site.
        SiteError: The site is a convolution.
    """

    def __init__(self, site: Site, config: HoulsbyConfig, shared: nn.Module | None = None) -> None:
        super().__init__()
        check_frames(site, "houlsby")
        check_width("bottleneck", config.bottleneck, site.dim_out)
        self.bottleneck = Bottleneck(
            site.dim_out,
            config.bottleneck,
            site.dim_out,
            bend=config.activation,
            norm=config.own_norm,
            dropout=config.dropout,
            initial=config.initial,
        )

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Return `y` and what the bottleneck makes of it."""
        changed: Tensor = y + self.bottleneck(y)
        return changed

    def branch(self) -> Branch | None:
        """Return the bottleneck (see `Adapter.branch`)."""
        return self.bottleneck.branch("output")


def parameters(site: Site, config: HoulsbyConfig) -> int:
    """Count 2 d r + r + d at a site of width d, and 2 d for a norm of its own."""
    return bottleneck_parameters(
        site.dim_out, config.bottleneck, site.dim_out, norm=config.own_norm
    )


METHOD = Method(
    config=HoulsbyConfig,
    adapter=HoulsbyAdapter,
    roles=("attn", "ffn"),
    source="https://arxiv.org/abs/1902.00751 section 2.1",
    tiny=HoulsbyConfig(bottleneck=4),
    parameters=parameters,
)
