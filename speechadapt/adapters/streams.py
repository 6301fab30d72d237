"""Several streams of one input, as rows of a batch, and the learned mean that joins them.

    w = softmax(W_2 silu(W_1 [h_1; ..; h_P] + b_1) + b_2)
    y = sum_p ((1 - smoothing) w_p + smoothing / P) h_p

The weights are of a position; no stream's is less than smoothing / P, so that each keeps learning.

Source: https://arxiv.org/abs/2505.10475 section 2
Reference: https://github.com/QwenLM/ParScale
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.core.errors import ConfigError

SMOOTHING = 0.01


class Mixer(nn.Module):
    """Joins the streams of a position.

    Args:
        dim: Width of a stream's state, and of the layer within.
        streams: How many there are.
    """

    def __init__(self, dim: int, streams: int) -> None:
        super().__init__()
        self.streams = streams
        self.inner = nn.Linear(streams * dim, dim)
        self.outer = nn.Linear(dim, streams)

    def forward(
        self, states: Float[Tensor, "rows streams positions dim"]
    ) -> Float[Tensor, "rows positions dim"]:
        """Return the weighted mean of the streams.

        Args:
            states: Of every stream.
        """
        weights = self.weights(states).to(states.dtype)
        return torch.einsum("rps,rspd->rpd", weights, states)

    def weights(
        self, states: Float[Tensor, "rows streams positions dim"]
    ) -> Float[Tensor, "rows positions streams"]:
        """Return what each stream counts for at each position; they sum to 1.

        Args:
            states: Of every stream.
        """
        beside = states.transpose(1, 2).flatten(2)
        found: Tensor = self.outer(functional.silu(self.inner(beside)))
        return (1.0 - SMOOTHING) * found.softmax(-1) + SMOOTHING / self.streams


def mixer_parameters(dim: int, streams: int) -> int:
    """Count P d^2 + d of the layer within and P d + P of the weights.

    Args:
        dim: Width of a state.
        streams: P.
    """
    return streams * dim * dim + dim + streams * dim + streams


def streams_of(names: Sequence[str], streams: Mapping[str, int]) -> int:
    """Return how many streams a row with some adapters becomes.

    Args:
        names: Its adapters.
        streams: Of each adapter that makes more than one.

    Raises:
        ConfigError: Two of them do.
    """
    several = [name for name in names if name in streams]
    if len(several) > 1:
        raise ConfigError(
            f"adapters '{several[0]}' and '{several[1]}' were both to make streams of one row. "
            "Use one of them at a time."
        )
    return streams[several[0]] if several else 1
