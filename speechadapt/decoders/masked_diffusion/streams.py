"""Parallel streams of a masked-diffusion network: prefixes in every layer, joined at the end.

Every candidate goes through the network P times, as P rows of one batch. In each self-attention a
stream has keys and values of its own ahead of the positions; after the closing norm a small network
weighs the streams place by place (`adapters.streams.Mixer`), and the head sees their mean.

Source: https://arxiv.org/abs/2505.10475 section 2
Reference: https://github.com/QwenLM/ParScale (inference alone is public)
Differs: attention is bidirectional, so a prefix is seen by all positions, and cross-attention has
    none. How prefixes start is not published; here from N(0, 0.02).
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters.streams import Mixer
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape

_DEVIATION = 0.02

Prefix: TypeAlias = tuple[
    Float[Tensor, "rows heads prefix head_dim"], Float[Tensor, "rows heads prefix head_dim"]
]


class Streams(nn.Module):
    """Prefixes and what joins the streams.

    Args:
        shape: The network's shape, with more than one stream.
    """

    def __init__(self, shape: DiffusionShape) -> None:
        super().__init__()
        self.count = shape.streams
        width = shape.dim // shape.heads
        size = (shape.layers, 2, shape.streams, shape.heads, shape.prefix, width)
        self.prefixes = nn.Parameter(_DEVIATION * torch.randn(size))
        self.mixer = Mixer(shape.dim, shape.streams)

    def split(
        self, states: Float[Tensor, "utterances candidates positions dim"]
    ) -> Float[Tensor, "utterances wide positions dim"]:
        """Return every candidate as often as there are streams, side by side.

        Args:
            states: What the first layer is to take.
        """
        return states.repeat_interleave(self.count, 1)

    def prefix(self, layer: int, rows: int) -> Prefix:
        """Return keys and values that go ahead of the positions of each row.

        Args:
            layer: Number of the layer.
            rows: Utterances times candidates times streams.
        """
        keys, values = (one.repeat(rows // self.count, 1, 1, 1) for one in self.prefixes[layer])
        return keys, values

    def join(
        self, states: Float[Tensor, "utterances wide positions dim"]
    ) -> Float[Tensor, "utterances candidates positions dim"]:
        """Return the weighted mean of the streams of every candidate.

        Args:
            states: Final states of all streams, as `split` ordered them.
        """
        utterances, _, positions, dim = states.shape
        joined: Tensor = self.mixer(states.reshape(-1, self.count, positions, dim))
        return joined.view(utterances, -1, positions, dim)
