"""How many tokens an utterance has: a distribution over counts from the encoder's frames.

Every frame adds a learned amount to the expected count, as in continuous integrate-and-fire
(arXiv 1905.11235); around it lies a discretised logistic distribution of learned width. Decoding
takes a high quantile of it, so that as few positions as needed are computed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.core.shapes import Frames, Lengths, Mask, length_mask

_HIDDEN = 64
_NARROWEST = 0.05


class LengthHead(nn.Module):
    """A distribution over the number of tokens, the end not counted.

    Args:
        dim: Width of the frames.
        most: Largest count.
    """

    def __init__(self, dim: int, most: int) -> None:
        super().__init__()
        self.most = most
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, _HIDDEN)
        self.amount = nn.Linear(_HIDDEN, 1)
        self.width = nn.Linear(_HIDDEN, 1)
        nn.init.constant_(self.amount.bias, -2.0)  # about one token in eight frames at the start

    def forward(self, frames: Frames, lengths: Lengths) -> Float[Tensor, "batch counts"]:
        """Return the natural log-probability of every count from 0 to `most`, in float32.

        Args:
            frames: Encoder frames.
            lengths: Valid frames per row.
        """
        valid = length_mask(lengths, frames.shape[1])
        hidden = functional.silu(self.hidden(self.norm(frames)))
        amounts = self._amounts(hidden, valid)
        counted = lengths.clamp(min=1).float()
        pooled = (hidden * valid[..., None]).sum(1) / counted[:, None].to(hidden.dtype)
        width = functional.softplus(self.width(pooled)[:, 0].float()) + _NARROWEST
        return discretised_logistic(amounts.sum(1), width * counted.sqrt(), self.most)

    def reached(self, frames: Frames, lengths: Lengths) -> Float[Tensor, "batch frames"]:
        """Return how many tokens are expected up to the middle of each frame, in float32.

        Args:
            frames: Encoder frames.
            lengths: Valid frames per row.
        """
        valid = length_mask(lengths, frames.shape[1])
        amounts = self._amounts(functional.silu(self.hidden(self.norm(frames))), valid)
        return amounts.cumsum(1) - amounts / 2

    def _amounts(
        self, hidden: Float[Tensor, "batch frames hidden"], valid: Mask
    ) -> Float[Tensor, "batch frames"]:
        return functional.softplus(self.amount(hidden)[..., 0].float()) * valid


def discretised_logistic(
    mean: Float[Tensor, " batch"], width: Float[Tensor, " batch"], most: int
) -> Float[Tensor, "batch counts"]:
    """Return natural log-probabilities of the counts 0 to `most`, which stands for all above it.

    Args:
        mean: Of the logistic distribution.
        width: Its scale.
        most: Largest count.
    """
    edges = torch.arange(1, most + 1, device=mean.device) - 0.5
    standard = (edges[None, :] - mean[:, None]) / width[:, None]
    first = functional.logsigmoid(standard[:, :1])
    last = functional.logsigmoid(-standard[:, -1:])
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), with b - a = 1 / width
    step = torch.log(-torch.expm1(-1 / width))[:, None]
    inner = functional.logsigmoid(standard[:, 1:]) + functional.logsigmoid(-standard[:, :-1]) + step
    return torch.cat([first, inner, last], dim=1)


def length_quantile(log_probs: Float[Tensor, "batch counts"], quantile: float) -> list[int]:
    """Return the smallest count of each row that is not exceeded with probability `quantile`.

    Args:
        log_probs: As `LengthHead` returns them.
        quantile: Between 0 and 1.
    """
    if not 0.0 < quantile < 1.0 or math.isnan(quantile):
        raise ValueError(f"a quantile lies between 0 and 1, got {quantile}.")
    below = log_probs.exp().cumsum(1) < quantile
    return [min(count, log_probs.shape[1] - 1) for count in below.sum(1).tolist()]
