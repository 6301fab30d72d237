"""A narrow Conformer convolution beside or after a sub-layer.

    C(u) = up(silu(norm(depthwise(glu(expand(layer_norm(u)))))))
    parallel:     y' = y + C(x)          with the residual: y + C(x) + x
    sequential:   y' = C(y)              with the residual: y + C(y)

`expand` goes from width d to 2 m, the gate to m, `up` back to d. `up` starts at zero, so parallel
without and sequential with the residual change nothing at first. The depthwise convolution runs
over time: on frames with the padding zeroed, on the patches of a spectrogram along time within a
frequency row, where the special tokens are sequences of one token each.

Source: https://arxiv.org/abs/2312.03694 section 2
Reference: https://github.com/umbertocappellazzo/PETL_AST/blob/1fe23af/src/AST_adapters.py
    (Conformer_adapter)
Differs: there the output of the layer norm is overwritten by its input; here it is used. There the
    convolution runs on from the end of one frequency row into the next and over the special tokens;
    that is `axis=tokens` here, and `axis=grid` is a square kernel over frequency and time. Batch
    norm, which ties rows together and fails on a batch of one, is replaced by a layer norm (per
    position) or a group norm (per clip, over valid positions). `up` and all biases start at zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.blocks import (
    OrderName,
    check_frames,
    check_square,
    check_width,
    join,
    zero_padding,
)
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import ConfigError, ShapeError, SiteError
from speechadapt.core.limits import Count, Probability
from speechadapt.core.shapes import Frames, Mask
from speechadapt.encoders.sites import Grid, Site

NormName = Literal["layer", "group", "none"]
_EPSILON = 1e-5


@dataclass(frozen=True)
class AstConformerConfig:
    """Settings of the Conformer convolution adapter.

    Args:
        bottleneck: Width m of the convolution, at most the site's; 768 / 64 in the study.
        kernel: Taps of the convolution, an odd number.
        axis: What it runs along: `time`, frequency and time (`grid`), or the whole sequence
            (`tokens`). Where frames are no patches, `time` and `tokens` are the same.
        norm: What follows it: `layer` (over channels), `group` (over groups of channels and all
            valid positions of a clip) or `none`.
        groups: Groups of `norm=group`; must divide the bottleneck.
        order: Beside the sub-layer (`parallel`) or after it (`sequential`).
        residual: Whether the branch's input is added to its output; None: only where sequential,
            as the study advises.
        dropout: Share of the branch's output set to zero in training.

    Raises:
        ConfigError: The kernel is even, or the groups do not divide the bottleneck.
    """

    bottleneck: Count = 12
    kernel: Count = 9
    axis: Literal["time", "grid", "tokens"] = "time"
    norm: NormName = "layer"
    groups: Count = 1
    order: OrderName = "parallel"
    residual: bool | None = None
    dropout: Probability = 0.0

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ConfigError(
                f"adapter.kernel must be odd, so that it has a middle, got {self.kernel}."
            )
        if self.groups < 1 or self.bottleneck % self.groups:
            raise ConfigError(
                f"adapter.groups must divide adapter.bottleneck={self.bottleneck}, got "
                f"{self.groups}."
            )


class AstConformerAdapter(Adapter):
    """The convolution at one sub-layer.

    Args:
        site: A sub-layer as wide where it writes as where it reads; frames, not a convolution.
        config: Its settings.
        shared: Nothing.

    Raises:
        ConfigError: The bottleneck is wider than the site.
        SiteError: The site is a convolution, its widths differ, or `axis=grid` was asked for where
            there is none.
    """

    def __init__(
        self, site: Site, config: AstConformerConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_frames(site, "ast_conformer")
        check_square(site, "ast_conformer", "stands beside or after a whole sub-layer")
        check_width("bottleneck", config.bottleneck, site.dim_out)
        self.order: OrderName = config.order
        sequential = config.order == "sequential"
        self.residual = sequential if config.residual is None else config.residual
        width = config.bottleneck
        self.layer_norm = nn.LayerNorm(site.dim_in)
        self.expand = nn.Linear(site.dim_in, 2 * width)
        self.convolution = Convolution(site, config)
        self.norm = ValidNorm(width, config.norm, config.groups)
        self.up = nn.Linear(width, site.dim_out)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.kaiming_uniform_(self.expand.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        for bias in (self.expand.bias, self.up.bias):
            nn.init.zeros_(bias)

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Return the sub-layer's output with the convolution beside or after it."""
        branch = partial(self._branch, mask=context.mask)
        return join(branch, x, y, self.order, self.residual)

    def _branch(self, states: Frames, mask: Mask | None) -> Frames:
        gated = functional.glu(self.expand(self.layer_norm(states)), dim=-1)
        mixed = self.norm(self.convolution(zero_padding(gated, mask)), mask)
        added: Tensor = self.dropout(self.up(functional.silu(mixed)))
        return added


class Convolution(nn.Module):
    """A depthwise convolution over time, or over frequency and time, that keeps every length.

    Args:
        site: Says how the tokens lie.
        config: Width, taps and axis. The convolution has a bias only where no norm follows, whose
            shift does its work.

    Raises:
        SiteError: `axis=grid` was asked for where tokens are no patches.
    """

    def __init__(self, site: Site, config: AstConformerConfig) -> None:
        super().__init__()
        if config.axis == "grid" and site.grid is None:
            raise SiteError(
                f"adapter.axis=grid was asked for at '{site.role}', whose frames are no patches of "
                "a spectrogram. Set adapter.axis=time."
            )
        self.grid = None if config.axis == "tokens" else site.grid
        self.reach = config.kernel // 2
        rows = config.kernel if config.axis == "grid" else 1
        width = config.bottleneck
        self.weight = nn.Parameter(torch.empty(width, 1, rows, config.kernel))
        self.bias = nn.Parameter(torch.zeros(width)) if config.norm == "none" else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, states: Frames) -> Frames:
        """Mix each channel over its neighbours; zeros stand beyond every end.

        Args:
            states: Frames with the padding zeroed, or the tokens of a grid.

        Raises:
            ShapeError: The tokens do not fill the grid.
        """
        if self.grid is None:
            return self._mix(states[:, None])[:, 0]
        grid = self.grid
        _check_fills(states.shape[1], grid)
        batch, _, width = states.shape
        specials, patches = states[:, : grid.specials], states[:, grid.specials :]
        mixed = self._mix(patches.reshape(batch, grid.rows, grid.columns, width))
        return torch.cat([self._alone(specials), mixed.flatten(1, 2)], dim=1)

    def _mix(
        self, picture: Float[Tensor, "batch rows columns width"]
    ) -> Float[Tensor, "batch rows columns width"]:
        mixed = functional.conv2d(
            picture.permute(0, 3, 1, 2),
            self.weight,
            self.bias,
            padding=(self.weight.shape[2] // 2, self.reach),
            groups=self.weight.shape[0],
        )
        return mixed.permute(0, 2, 3, 1)

    def _alone(self, specials: Frames) -> Frames:
        """Convolve sequences of one token: only the middle tap meets it."""
        middle = self.weight[:, 0, self.weight.shape[2] // 2, self.reach].to(specials.dtype)
        scaled = specials * middle
        return scaled if self.bias is None else scaled + self.bias.to(specials.dtype)


class ValidNorm(nn.Module):
    """A norm over channels per position, or over groups of channels and all valid positions.

    Args:
        width: Channels.
        kind: `layer`, `group` or `none`.
        groups: Groups of `group`.
    """

    def __init__(self, width: int, kind: NormName, groups: int) -> None:
        super().__init__()
        self.kind, self.groups = kind, groups
        self.gain = nn.Parameter(torch.ones(width)) if kind != "none" else None
        self.shift = nn.Parameter(torch.zeros(width)) if kind != "none" else None

    def forward(self, states: Frames, mask: Mask | None) -> Frames:
        """Return normalised frames; what is past a clip's end takes no part in the statistics.

        Args:
            states: Frames.
            mask: True at valid frames; None where all are.
        """
        if self.kind == "none":
            return states
        if self.kind == "layer":
            return functional.layer_norm(
                states, (states.shape[-1],), self.gain, self.shift, _EPSILON
            )
        assert self.gain is not None
        assert self.shift is not None
        normed = _group_norm(states, mask, self.groups)
        return (normed * self.gain + self.shift).to(states.dtype)


def _group_norm(states: Frames, mask: Mask | None, groups: int) -> Frames:
    batch, frames, width = states.shape
    values = states.float().reshape(batch, frames, groups, width // groups)
    if mask is None:
        valid = torch.ones(batch, frames, 1, 1, device=states.device)
    else:
        valid = mask.float()[:, :, None, None]
    count = (valid.sum(dim=(1, 3), keepdim=True) * values.shape[-1]).clamp(min=1.0)
    centred = values - (values * valid).sum(dim=(1, 3), keepdim=True) / count
    variance = (centred.square() * valid).sum(dim=(1, 3), keepdim=True) / count
    return (centred * torch.rsqrt(variance + _EPSILON)).reshape(states.shape)


def _check_fills(tokens: int, grid: Grid) -> None:
    wanted = grid.specials + grid.rows * grid.columns
    if tokens != wanted:
        raise ShapeError(
            f"adapter 'ast_conformer' was given {tokens} tokens, but the encoder's grid has "
            f"{grid.specials} + {grid.rows} x {grid.columns} = {wanted}."
        )


def parameters(site: Site, config: AstConformerConfig) -> int:
    """Count 2 d + 2 m (d + 1) + m k + (m d + d), and 2 m of the norm or m of a bias.

    With `axis=grid` the kernel has k * k taps.
    """
    width, dim = config.bottleneck, site.dim_in
    taps = config.kernel**2 if config.axis == "grid" else config.kernel
    after = width if config.norm == "none" else 2 * width
    return 2 * dim + 2 * width * (dim + 1) + width * taps + after + (width + 1) * site.dim_out


METHOD = Method(
    config=AstConformerConfig,
    adapter=AstConformerAdapter,
    roles=("ffn",),
    source="https://arxiv.org/abs/2312.03694 section 2",
    tiny=AstConformerConfig(bottleneck=4, kernel=3),
    parameters=parameters,
    learning_rate=5e-3,
)
