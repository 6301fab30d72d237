"""What masked diffusion is trained on: hiding tokens, and the cross-entropy of the hidden ones.

Source: SMDM (arXiv 2410.18514), the bound of section 3 with its `1/p` weights; Whisfusion
(arXiv 2508.07048), the plain mean over hidden tokens and the high masking ratios.
Differs: the ratios of a batch are stratified, which lowers the variance of the bound's estimate and
leaves its mean alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

LEAST_RATIO = 1e-3

Rows = Int[Tensor, "rows positions"]
Places = Bool[Tensor, "rows positions"]
Ratios = Float[Tensor, " rows"]


def draw_ratios(
    rows: int, generator: torch.Generator, low: float = LEAST_RATIO, high: float = 1.0
) -> Ratios:
    """Draw the probability of being hidden of each row, uniform between two ends.

    Args:
        rows: Number of rows; each falls into a stratum of its own, in random order.
        generator: The only source of randomness, on the CPU.
        low: Lower end.
        high: Upper end.
    """
    places = torch.randperm(rows, generator=generator)
    unit = (places + torch.rand(rows, generator=generator)) / rows
    return low + (high - low) * unit


def hide(allowed: Places, ratios: Ratios, generator: torch.Generator) -> Places:
    """Choose the tokens to hide, each by itself.

    Args:
        allowed: Where a token may be hidden.
        ratios: Probability of being hidden, by row.
        generator: The only source of randomness, on the CPU.

    Returns:
        True where a token is hidden.
    """
    drawn = torch.rand(allowed.shape, generator=generator)
    return allowed & (drawn < ratios[:, None])


def bound(
    log_probs: Float[Tensor, "hidden vocab"],
    tokens: Rows,
    hidden: Places,
    ratios: Ratios,
) -> Float[Tensor, " rows"]:
    """Estimate the upper bound of each row's negative log-likelihood, in nats.

    The mean over ratios, uniform from 0 to 1, and over hidden places is the negative evidence lower
    bound. It equals the mean, over all orders of the tokens, of the negative log-likelihood of
    writing them one by one in that order.

    Args:
        log_probs: Natural log-probabilities at the hidden places, in the order of
            `hidden.nonzero()`.
        tokens: The true tokens.
        hidden: Where they were hidden.
        ratios: With what probability, by row.
    """
    costs = _costs(log_probs, tokens, hidden)
    return costs.sum(1) / ratios


def masked_cross_entropy(
    log_probs: Float[Tensor, "hidden vocab"], tokens: Rows, hidden: Places
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over all hidden tokens of a batch, in nats; 0 where none is.

    Args:
        log_probs: Natural log-probabilities at the hidden places, in the order of
            `hidden.nonzero()`.
        tokens: The true tokens.
        hidden: Where they were hidden.
    """
    return _costs(log_probs, tokens, hidden).sum() / hidden.sum().clamp(min=1)


def _costs(
    log_probs: Float[Tensor, "hidden vocab"], tokens: Rows, hidden: Places
) -> Float[Tensor, "rows positions"]:
    costs = log_probs.new_zeros(tokens.shape)
    wanted = functional.nll_loss(log_probs, tokens[hidden], reduction="none")
    return costs.masked_scatter(hidden, wanted)
