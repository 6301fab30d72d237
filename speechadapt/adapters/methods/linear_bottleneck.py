"""A bottleneck before, after or beside any linear map, square or not.

    before:    y' = W (x + s up(g(down x))) + b
    after:     y' = y + s up(g(down y))           y = W x + b
    parallel:  y' = y + s up(g(down x))

The projections have no biases and `up` starts at zero, so nothing changes at first. A convolution
of one tap is a linear map and may be adapted too.

Source: https://arxiv.org/abs/2304.01933 section 2
Reference: https://github.com/AGI-Edgerunners/LLM-Adapters/blob/8166572/peft/src/peft/tuners/bottleneck.py
    (tanh, no biases, scale 1, dropout on the input; maps that widen get the adapter before, maps
    that narrow after)
Differs: the zero start is the default (theirs: `initial=normal`), and so is a width that suits a
    speech encoder. `placement=auto` takes before and after from the role, not from a table of
    module names per model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from speechadapt.adapters.blocks import (
    ActivationName,
    Bottleneck,
    InitialName,
    bottleneck_parameters,
    check_width,
)
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import SiteError
from speechadapt.core.limits import Count, Probability
from speechadapt.encoders.sites import Site

_BEFORE = {"q", "k", "v", "up", "pw1"}  # last parts of roles whose map opens a sub-layer


@dataclass(frozen=True)
class LinearBottleneckConfig:
    """Settings of the adapter around a linear map.

    Args:
        bottleneck: Width between the projections, at most the narrower side of what it spans.
        placement: Where it stands; `auto` is before maps that open a sub-layer (q, k, v, up, pw1)
            and after those that close it (out, down, pw2).
        activation: What bends the narrow states.
        scale: s, what multiplies the branch; where it starts, if learned.
        learn_scale: Whether the scale is trained.
        initial: How the projections start; `normal` is the reference's start.
        dropout: Share of the branch's input set to zero in training.
    """

    bottleneck: Count = 32
    placement: Literal["auto", "before", "after", "parallel"] = "auto"
    activation: ActivationName = "tanh"
    scale: float = 1.0
    learn_scale: bool = False
    initial: InitialName = "up_zero"
    dropout: Probability = 0.0


class LinearBottleneckAdapter(Adapter):
    """The bottleneck around one linear map.

    Args:
        site: A linear map or a convolution of one tap.
        config: Its settings.
        shared: Nothing.

    Raises:
        ConfigError: The bottleneck is wider than the map.
        SiteError: The site is something else.
    """

    def __init__(
        self, site: Site, config: LinearBottleneckConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.placement, dim_in, dim_out = _plan(site, config)
        check_width("bottleneck", config.bottleneck, min(dim_in, dim_out))
        self.channels_first = site.conv is not None
        self.bottleneck = Bottleneck(
            dim_in,
            config.bottleneck,
            dim_out,
            bend=config.activation,
            bias=False,
            dropout=config.dropout,
            initial=config.initial,
        )
        scale = torch.tensor(config.scale)
        self.scale = nn.Parameter(scale) if config.learn_scale else config.scale

    def enter(self, x: Tensor, context: Context) -> Tensor:
        """Return what goes into the map, changed where the adapter stands before it.

        Args:
            x: `[batch, frames, dim_in]`, at a convolution `[batch, dim_in, time]`.
            context: Not needed.
        """
        return x + self._branch(x) if self.placement == "before" else x

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Return what comes out of the map, changed where the adapter stands after or beside it.

        Args:
            x: What went into the map.
            y: `[batch, frames, dim_out]`, at a convolution `[batch, dim_out, time]`.
            context: Not needed.
        """
        if self.placement == "before":
            return y
        return y + self._branch(x if self.placement == "parallel" else y)

    def _branch(self, states: Tensor) -> Tensor:
        if self.channels_first:
            states = states.transpose(1, 2)
        added: Tensor = self.scale * self.bottleneck(states)
        return added.transpose(1, 2) if self.channels_first else added


def parameters(site: Site, config: LinearBottleneckConfig) -> int:
    """Count r (in + out) of the two projections, and 1 where the scale is learned."""
    _, dim_in, dim_out = _plan(site, config)
    weights = bottleneck_parameters(dim_in, config.bottleneck, dim_out, bias=False)
    return weights + config.learn_scale


def _plan(site: Site, config: LinearBottleneckConfig) -> tuple[str, int, int]:
    """Return the placement at a site and the widths between which the bottleneck stands."""
    pointwise = site.conv is not None and (
        (site.conv.kernel, site.conv.stride, site.conv.groups) == (1, 1, 1)
    )
    if site.read != site.write or not (site.kind == "Linear" or pointwise):
        raise SiteError(
            f"adapter 'linear_bottleneck' stands around one linear map, but '{site.role}' is a "
            f"{site.kind} from {site.read} to {site.write}. Choose roles such as attn.q, ffn.up or "
            "conv.pw1."
        )
    placement: str = config.placement
    if placement == "auto":
        placement = "before" if site.role.rpartition(".")[2] in _BEFORE else "after"
    widths = {
        "before": (site.dim_in, site.dim_in),
        "after": (site.dim_out, site.dim_out),
        "parallel": (site.dim_in, site.dim_out),
    }
    return placement, *widths[placement]


METHOD = Method(
    config=LinearBottleneckConfig,
    adapter=LinearBottleneckAdapter,
    roles=("ffn.up", "ffn.down"),
    source="https://arxiv.org/abs/2304.01933 section 2",
    tiny=LinearBottleneckConfig(bottleneck=4),
    parameters=parameters,
)
