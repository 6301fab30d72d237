"""Bottlenecks whose weights are generated: one pair of projections for each row of a batch.

added = up_b(bend(down_b(norm(u)))) of row b        down_b, up_b: from a hypernetwork
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.adapters.blocks import ActivationName, activation
from speechadapt.core.errors import SiteError
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site

_LAYER = re.compile(r"layer\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Generated:
    """Weights of a bottleneck, one row for each row of the batch.

    Args:
        down: `[batch, width, dim]`.
        bias: `[batch, width]`.
        up: `[batch, dim, width]`.
        shift: `[batch, dim]`.
    """

    down: Float[Tensor, "batch width dim"]
    bias: Float[Tensor, "batch width"]
    up: Float[Tensor, "batch dim width"]
    shift: Float[Tensor, "batch dim"]

    def __call__(self, states: Frames, bend: ActivationName) -> Frames:
        """Return what the bottlenecks make of the rows.

        Args:
            states: `[batch, frames, dim]`.
            bend: Name of the activation between the projections.
        """
        narrow = torch.baddbmm(self.bias[:, None], states, self.down.transpose(1, 2))
        made: Tensor = activation(bend)(narrow)
        return torch.baddbmm(self.shift[:, None], made, self.up.transpose(1, 2))


@dataclass(frozen=True)
class Places:
    """The sites of one attachment as numbers: layers and positions within a layer.

    Args:
        layers: Number of layers that are adapted.
        positions: Names of the positions, in order.
        width: The width that all sites have.
        table: Layer and position by role.
    """

    layers: int
    positions: tuple[str, ...]
    width: int
    table: Mapping[str, tuple[int, int]]


def places_of(sites: Sequence[Site], method: str) -> Places:
    """Number the sites of a method that shares one hypernetwork.

    Args:
        sites: In the encoder's order.
        method: The method's name, for the message.

    Raises:
        SiteError: A site is in no layer, or the sites write unlike widths.
    """
    found: dict[str, tuple[str, str]] = {}
    for site in sites:
        match = _LAYER.fullmatch(site.role)
        if match is None or site.dim_out != sites[0].dim_out:
            raise SiteError(
                f"adapter '{method}' generates one size of weights for the layers, but "
                f"'{site.role}' is in none or writes another width than '{sites[0].role}'. Choose "
                "roles such as attn and ffn."
            )
        found[site.role] = (match[1], match[2])
    layers = list(dict.fromkeys(layer for layer, _ in found.values()))
    positions = tuple(dict.fromkeys(position for _, position in found.values()))
    table = {
        role: (layers.index(layer), positions.index(position))
        for role, (layer, position) in found.items()
    }
    return Places(len(layers), positions, sites[0].dim_out, table)
