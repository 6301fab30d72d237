"""One bottleneck per layer, at its end, reading the residual stream.

    y' = y + up(g(down(y + h)))    y: output of the last feed-forward, h: the stream it is added to

`up` starts at zero, so nothing changes at first. At the role `end` the output `y` already is the
stream `y + h`; at `attn`, `ffn` or `conv` the adapter taps `h` before the sub-layer's norm, and
`input=output` makes it read `y` alone.

Source: https://arxiv.org/abs/2005.00247
Reference: https://github.com/adapter-hub/adapters/blob/88f18ebd6c/src/adapters/configuration/
    adapter_config.py (seq_bn: `input=stream` is its original_ln_before=True, `residual=output` its
    residual_before_ln=True)
Differs: the zero start is the default, theirs is `initial=normal`. What the adapter reads and what
    it adds to are settings, because ports disagree. A Conformer gets one adapter per layer too,
    before its closing norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from speechadapt.adapters.blocks import (
    ActivationName,
    Bottleneck,
    InitialName,
    bottleneck_parameters,
    check_frames,
    check_square,
    check_width,
)
from speechadapt.adapters.branch import Branch
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.limits import Count, Probability
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class PfeifferConfig:
    """Settings of the adapter at the end of a layer.

    Args:
        bottleneck: Width between the projections, at most the site's.
        activation: What bends the narrow states.
        input: What the adapter reads: the residual `stream` y + h, or the sub-layer's `output` y.
        residual: What it adds to: the `output` y, or the `stream` y + h, which meets h once more.
        initial: How the projections start; `normal` is AdapterHub's start.
        own_norm: Whether a layer norm of its own comes first.
        dropout: Share of the branch's input set to zero in training.
    """

    bottleneck: Count = 48
    activation: ActivationName = "relu"
    input: Literal["stream", "output"] = "stream"
    residual: Literal["output", "stream"] = "output"
    initial: InitialName = "up_zero"
    own_norm: bool = False
    dropout: Probability = 0.0


class PfeifferAdapter(Adapter):
    """The bottleneck on the residual stream after one sub-layer.

    Args:
        site: The end of a layer, or a sub-layer with a tap on the stream before its norm.
        config: Its settings.
        shared: Nothing.

    Raises:
        ConfigError: The bottleneck is wider than the site, or the end of a layer was combined with
            settings that need the sub-layer's output alone.
        SiteError: The site is a convolution or has no tap where one is needed.
    """

    def __init__(self, site: Site, config: PfeifferConfig, shared: nn.Module | None = None) -> None:
        super().__init__()
        check_frames(site, "pfeiffer")
        check_width("bottleneck", config.bottleneck, site.dim_out)
        self.at_end = site.role.endswith(".end")
        self.input, self.residual = config.input, config.residual
        self.taps = not self.at_end and "stream" in (config.input, config.residual)
        _check_stream(site, config, self.taps)
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
        """Return `y` and what the bottleneck makes of it and of the stream."""
        stream = x + y if self.taps else y
        read = stream if self.input == "stream" else y
        kept = stream if self.residual == "stream" else y
        changed: Tensor = kept + self.bottleneck(read)
        return changed

    def branch(self) -> Branch | None:
        """Return the bottleneck, unless it adds to the stream (see `Adapter.branch`)."""
        if self.residual == "stream":
            return None
        return self.bottleneck.branch("sum" if self.taps else "output")


def _check_stream(site: Site, config: PfeifferConfig, taps: bool) -> None:
    if site.role.endswith(".end") and (config.input, config.residual) != ("stream", "output"):
        raise ConfigError(
            f"adapter.input={config.input} with adapter.residual={config.residual} was asked for "
            f"at '{site.role}', where a sub-layer's output is no longer apart from the stream. "
            "Leave both at their defaults or choose roles such as attn or ffn."
        )
    if taps and site.tap is None:
        raise SiteError(
            f"adapter 'pfeiffer' reads the residual stream, which '{site.role}' does not offer. "
            "Choose roles such as end, attn or ffn, or set adapter.input=output."
        )
    if taps:
        check_square(site, "pfeiffer", "adds the residual stream")


def parameters(site: Site, config: PfeifferConfig) -> int:
    """Count 2 d r + r + d at a site of width d, and 2 d for a norm of its own."""
    return bottleneck_parameters(
        site.dim_out, config.bottleneck, site.dim_out, norm=config.own_norm
    )


METHOD = Method(
    config=PfeifferConfig,
    adapter=PfeifferAdapter,
    roles=("end",),
    source="https://arxiv.org/abs/2005.00247",
    tiny=PfeifferConfig(bottleneck=4),
    parameters=parameters,
)
