"""Narrow attention along time within each band, then along frequency within each moment.

    u = down(x)                                       [bands, moments, width m]
    u = u + A_time(norm(u) + positions)               every band is a sequence of moments
    u = u + A_frequency(norm(u) + positions)          every moment is a sequence of bands
    y' = y + up(u)

On a grid of F bands and T moments that is F T^2 + T F^2 scores in place of the (F T)^2 of attention
over all patches, a tenth on the usual grid of 12 x 101. `up` starts at zero, so nothing changes at
first. Special tokens take no part and are left as they are. Frames that are no patches are one
band, and then there is attention along time alone.

Source: https://arxiv.org/abs/2410.22901 section 3.1
Reference: https://github.com/HelloVision/HelloMeme/blob/e0c7fe1/hellomeme/models/hm_blocks.py
    (SKReferenceAttention)
Differs: narrow between two projections where the reference is as wide as its site; a linear map in
    place of the closing 3x3 convolution; no reference picture is set beside the input. Keys have no
    bias, which would change nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.blocks import check_frames, check_square, check_width, initialise
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import ConfigError, ShapeError
from speechadapt.core.limits import Count
from speechadapt.core.shapes import Frames, Mask
from speechadapt.encoders.sites import Grid, Site

_LONGEST_WAVE = 10000.0  # of the sinusoidal positions


@dataclass(frozen=True)
class KnittingAttentionConfig:
    """Settings of the knitting attention.

    Args:
        width: Width m of both attentions, an even number, at most the site's.
        heads: Attention heads; they divide the width.
        order: Which attention comes first.

    Raises:
        ConfigError: The width is odd or no multiple of the heads.
    """

    width: Count = 32
    heads: Count = 4
    order: Literal["time_first", "frequency_first"] = "time_first"

    def __post_init__(self) -> None:
        if self.width % 2 or self.width % self.heads:
            raise ConfigError(
                f"adapter.width must be even and a multiple of adapter.heads={self.heads}, got "
                f"{self.width}."
            )


class SequenceAttention(nn.Module):
    """Self-attention over sequences that stand side by side, with what goes in added.

    Args:
        width: Width of its states.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        states: Float[Tensor, "*sequences length width"],
        mask: Bool[Tensor, "*#sequences length"] | None = None,
    ) -> Float[Tensor, "*sequences length width"]:
        """Return the states with what each finds in its own sequence.

        Args:
            states: All sequences, positions next to last.
            mask: True at the positions that are there; None where all are.
        """
        normed = self.norm(states)
        placed = normed + positions(states.shape[-2], states.shape[-1]).to(normed)
        query, key, value = (self._split(one(placed)) for one in (self.query, self.key, self.value))
        meet = None if mask is None else mask[..., None, None, :]
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=meet)
        added: Tensor = self.out(found.transpose(-2, -3).flatten(-2))
        return states + added

    def _split(self, states: Tensor) -> Tensor:
        return states.reshape(*states.shape[:-1], self.heads, -1).transpose(-2, -3)


class KnittingAttentionAdapter(Adapter):
    """The two attentions at one sub-layer.

    Args:
        site: A sub-layer as wide where it writes as where it reads; frames, not a convolution.
        config: Its settings.
        shared: Nothing.

    Raises:
        ConfigError: The width is above the site's.
        SiteError: The site is a convolution, or its widths differ.
    """

    def __init__(
        self, site: Site, config: KnittingAttentionConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_frames(site, "knitting_attention")
        check_square(site, "knitting_attention", "stands beside a whole sub-layer")
        check_width("width", config.width, site.dim_in)
        self.grid = site.grid
        self.order = config.order
        self.down = nn.Linear(site.dim_in, config.width)
        self.time = SequenceAttention(config.width, config.heads)
        self.frequency = (
            SequenceAttention(config.width, config.heads) if site.grid is not None else None
        )
        self.up = nn.Linear(config.width, site.dim_out)
        initialise(self.down, self.up, "up_zero")

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Add what patches find along their band and their moment.

        Args:
            x: Input of the sub-layer.
            y: Its output.
            context: Holds the mask.

        Raises:
            ShapeError: The tokens do not fill the grid.
        """
        grid = self.grid
        if grid is None:
            return y + self._knitted(x, None, context.mask)
        _check_fills(x.shape[1], grid)
        added = self._knitted(x[:, grid.specials :], grid, None)
        return y + functional.pad(added, (0, 0, grid.specials, 0))

    def _knitted(self, x: Frames, grid: Grid | None, mask: Mask | None) -> Frames:
        narrow: Tensor = self.down(x)
        if grid is None:
            narrow = self.time(narrow, mask)
        else:
            picture = narrow.reshape(len(x), grid.rows, grid.columns, -1)
            narrow = self.knit(picture).flatten(1, 2)
        added: Tensor = self.up(narrow)
        return added

    def knit(
        self, picture: Float[Tensor, "batch bands moments width"]
    ) -> Float[Tensor, "batch bands moments width"]:
        """Return a picture after both attentions.

        Args:
            picture: Narrow states of the patches.
        """
        if self.order == "time_first":
            return self.along_frequency(self.time(picture))
        states: Tensor = self.time(self.along_frequency(picture))
        return states

    def along_frequency(
        self, picture: Float[Tensor, "batch bands moments width"]
    ) -> Float[Tensor, "batch bands moments width"]:
        """Return a picture after the attention of each moment's bands to one another.

        Args:
            picture: Narrow states of the patches.
        """
        assert self.frequency is not None
        states: Tensor = self.frequency(picture.transpose(1, 2))
        return states.transpose(1, 2)


def positions(length: int, width: int) -> Float[Tensor, "length width"]:
    """Return sines and cosines of the positions, half of the width each.

    Args:
        length: Positions of a sequence.
        width: An even number.
    """
    rates = torch.exp(-math.log(_LONGEST_WAVE) * torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def scores(grid: Grid) -> int:
    """Return how many scores both attentions compute on a grid, for one head.

    Args:
        grid: Of the patches.
    """
    return grid.rows * grid.columns * (grid.rows + grid.columns)


def _check_fills(tokens: int, grid: Grid) -> None:
    wanted = grid.specials + grid.rows * grid.columns
    if tokens != wanted:
        raise ShapeError(
            f"adapter 'knitting_attention' was given {tokens} tokens, but the encoder's grid has "
            f"{grid.specials} + {grid.rows} x {grid.columns} = {wanted}."
        )


def parameters(site: Site, config: KnittingAttentionConfig) -> int:
    """Count 2 d m + m + d of the projections and 4 m^2 + 5 m of each attention with its norm."""
    width = config.width
    attentions = 1 if site.grid is None else 2
    projections = width * (site.dim_in + site.dim_out + 1) + site.dim_out
    return projections + attentions * (4 * width * width + 5 * width)


METHOD = Method(
    config=KnittingAttentionConfig,
    adapter=KnittingAttentionAdapter,
    roles=("attn",),
    source="https://arxiv.org/abs/2410.22901 section 3.1",
    tiny=KnittingAttentionConfig(width=8, heads=2),
    parameters=parameters,
    learning_rate=2e-3,
)
