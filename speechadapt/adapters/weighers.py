"""Who weighs the parts of a mixture: fixed numbers, rows, gates, attention.

Source: https://arxiv.org/abs/2005.00247 section 3 (attention over adapters). The other ways are
    this project's own; what the work on audio (https://arxiv.org/abs/2310.13015) does in its three
    ways is known from its abstract alone.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.mixture import Changes, Weigher
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.shapes import Frames

Span: TypeAlias = Literal["token", "utterance", "layer"]
Value: TypeAlias = Literal["low_rank", "full", "none"]

ROW_WEIGHTS = "adapter_weights"
START_STD = 0.02


class Fixed(Weigher):
    """The same weights everywhere; nothing is trained.

    Args:
        weights: One for each part.
    """

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def forward(self, query: Frames, changes: Changes, context: Context) -> Float[Tensor, " parts"]:
        """Return the weights."""
        weights: Tensor = self.get_buffer("weights")
        return weights.to(query.dtype)


class ByRow(Weigher):
    """Weights that the caller gives for each row, as the condition `adapter_weights`."""

    def forward(
        self, query: Frames, changes: Changes, context: Context
    ) -> Float[Tensor, "batch 1 parts"]:
        """Return the weights of the rows.

        Raises:
            ConfigError: They are not `[batch, parts]`.
        """
        rows = torch.as_tensor(context.conditions[ROW_WEIGHTS])
        if tuple(rows.shape) != (len(query), changes.count):
            raise ConfigError(
                f"the condition '{ROW_WEIGHTS}' must be {[len(query), changes.count]} (rows by "
                f"adapters), got {list(rows.shape)}."
            )
        return rows[:, None].to(query.device, query.dtype)


class Gate(Weigher):
    """A softmax over the parts: of numbers, or of a linear map of what is heard.

    It starts as the mean of the parts.

    Args:
        width: Of what is heard.
        count: Number of parts.
        per: `layer` (one weight per part and site), `utterance` or `token`.
    """

    def __init__(self, width: int, count: int, per: Span) -> None:
        super().__init__()
        self.per = per
        self.bias = nn.Parameter(torch.zeros(count))
        self.weight = None if per == "layer" else nn.Parameter(torch.zeros(count, width))

    def forward(
        self, query: Frames, changes: Changes, context: Context
    ) -> Float[Tensor, "*rows parts"]:
        """Return the gate's weights."""
        if self.weight is None:
            return self.bias.softmax(-1)
        heard = functional.layer_norm(query, query.shape[-1:])
        if self.per == "utterance":
            heard = pooled(heard, context.mask)[:, None]
        return functional.linear(heard, self.weight, self.bias).softmax(-1)

    @staticmethod
    def count(width: int, parts: int, per: Span) -> int:
        """Return the closed-form number of its parameters."""
        return parts * (1 if per == "layer" else width + 1)


class Attention(Weigher):
    """Every frame asks, what the parts add answers.

        w = softmax_k( (Q norm(u) + b) . (K z_k) / (sqrt(d_k) temperature) )      finish: V

    A bias of K would change all scores alike, so there is none. V is the identity at the start:
    `full`, or the identity and a product of low rank (`low_rank`), or left out (`none`).

    Args:
        width: Of what is heard.
        dim: Of what the parts add.
        key_width: d_k; 0 takes `dim`.
        value: What V is.
        value_rank: Its rank where that is low.
        temperature: Above 1 flattens the weights.
    """

    def __init__(
        self,
        width: int,
        dim: int,
        key_width: int = 64,
        value: Value = "low_rank",
        value_rank: int = 32,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        size = key_width or dim
        self.divisor = math.sqrt(size) * temperature
        self.query = nn.Linear(width, size)
        self.key = nn.Parameter(torch.empty(size, dim))
        self.value_down = self.value_up = self.value = None
        nn.init.normal_(self.query.weight, std=START_STD)
        nn.init.zeros_(self.query.bias)
        nn.init.normal_(self.key, std=START_STD)
        if value == "full":
            self.value = nn.Parameter(torch.eye(dim))
        elif value == "low_rank":
            self.value_down = nn.Parameter(torch.empty(value_rank, dim))
            self.value_up = nn.Parameter(torch.zeros(dim, value_rank))
            nn.init.kaiming_uniform_(self.value_down, a=math.sqrt(5))

    def forward(
        self, query: Frames, changes: Changes, context: Context
    ) -> Float[Tensor, "batch frames parts"]:
        """Return the weights of every frame."""
        asked = self.query(functional.layer_norm(query, query.shape[-1:]))
        return (changes.scores(asked, self.key) / self.divisor).softmax(-1)

    def finish(self, added: Frames) -> Frames:
        """Return V times the weighted sum."""
        if self.value is not None:
            return functional.linear(added, self.value)
        if self.value_down is None or self.value_up is None:
            return added
        return added + functional.linear(functional.linear(added, self.value_down), self.value_up)

    def distance(self) -> Tensor:
        """Return the squared distance of V from the identity, summed over its entries."""
        if self.value is not None:
            eye = torch.eye(len(self.value), device=self.value.device, dtype=self.value.dtype)
            return (self.value - eye).square().sum()
        if self.value_down is None or self.value_up is None:
            return self.key.new_zeros(())
        return (self.value_up @ self.value_down).square().sum()

    @staticmethod
    def count(width: int, dim: int, key_width: int, value: Value, value_rank: int) -> int:
        """Return the closed-form number of its parameters."""
        size = key_width or dim
        values = {"full": dim * dim, "low_rank": 2 * value_rank * dim, "none": 0}
        return size * (width + 1 + dim) + values[value]


def pooled(
    states: Float[Tensor, "batch frames width"], mask: Bool[Tensor, "batch _"] | None
) -> Float[Tensor, "batch width"]:
    """Return the mean of each row's valid frames.

    Args:
        states: Frames.
        mask: True at valid frames; None takes all for valid.

    Raises:
        SiteError: The mask is for another number of frames, as at the convolutions of a stem.
    """
    if mask is None:
        return states.mean(1)
    if mask.shape[1] != states.shape[1]:
        raise SiteError(
            f"{states.shape[1]} frames were to be averaged, but which of them are valid is known "
            f"of {mask.shape[1]} only. Leave out the roles stem.conv.*."
        )
    valid = mask[:, :, None].to(states.dtype)
    return (states * valid).sum(1) / valid.sum(1).clamp(min=1.0)
