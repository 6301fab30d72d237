"""A soft choice of k out of n: weights between 0 and 1 that sum to k, with a gradient to scores.

    maximise  sum_i l_i s_i + t H(l)    with  sum_i l_i = k,  0 <= l_i <= 1,  H the entropy

The solution is l_i = exp(min(s_i + a, 0) / t) with the one number a that makes the sum right.
Projecting on the two conditions in turn finds a slowly where many weights are 1; sorting finds it
at once, since the largest scores get 1 and the rest share what is left as a softmax does.

Source: https://arxiv.org/abs/2304.04947 (soft top-k of Conditional Adapters)
Reference: https://github.com/lucidrains/CoLT5-attention (coordinate descent, which cites it)
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from speechadapt.core.shapes import Mask

START_TEMPERATURE = 4.0  # of the iteration, which cools down to the wanted one
COOLING = 0.7


def soft_topk(
    scores: Float[Tensor, "batch frames"],
    counts: Float[Tensor, " batch"],
    mask: Mask | None = None,
    temperature: float = 1.0,
    iterations: int = 0,
    ascending: Float[Tensor, "batch frames"] | None = None,
) -> Float[Tensor, "batch frames"]:
    """Return how much each frame is chosen, in float32 whatever autocast says.

    Args:
        scores: What to choose by.
        counts: k of each row; a row with no more valid frames than that has weight 1 everywhere.
        mask: True at valid frames, the others get 0; None takes all for valid.
        temperature: t; towards 0 the choice gets hard.
        iterations: Rounds of projections, as published; 0 solves it exactly.
        ascending: The scores in float32, sorted, the padding's first; None sorts them here.
    """
    with torch.autocast(scores.device.type, enabled=False):
        values = scores.float()
        if not iterations:
            hidden = values if mask is None else values.masked_fill(~mask, -math.inf)
            order = hidden.detach().sort(1).values if ascending is None else ascending.detach()
            if temperature != 1.0:
                hidden, order = hidden / temperature, order / temperature
            return _sorted(hidden, order, counts, mask)
        valid = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        spare = counts < valid.sum(1)
        k = torch.where(spare, counts, 1.0).float()  # rows without a choice: any k will do
        found = _projected(values, k, valid, temperature, iterations)
        return torch.where(spare[:, None], found, torch.ones_like(found)).masked_fill(~valid, 0.0)


def _projected(
    scores: Tensor, k: Tensor, valid: Bool[Tensor, "batch frames"], temperature: float, rounds: int
) -> Tensor:
    lowest = torch.finfo(scores.dtype).min
    log_k = k.log()[:, None]
    warmth = max(START_TEMPERATURE, temperature)
    shift = warmth * (log_k - valid.sum(1, keepdim=True).log())  # all weights are equal at first
    for _ in range(rounds):
        spread = (torch.minimum(scores, -shift) / warmth).masked_fill(~valid, lowest)
        shift = warmth * (log_k - spread.logsumexp(1, keepdim=True))
        warmth = max(COOLING * warmth, temperature)
    return ((scores + shift).clamp(max=0.0) / temperature).exp()


def _sorted(
    hidden: Tensor, ascending: Tensor, counts: Tensor, mask: Bool[Tensor, "batch frames"] | None
) -> Tensor:
    """Solve it exactly; `hidden` are the scores divided by the temperature, `ascending` sorted.

    With the m largest at weight 1 the next one gets (k - m) times its softmax among the rest: m is
    the smallest number for which that is no more than 1.
    """
    size = hidden.shape[1]
    with torch.no_grad():
        valid = torch.full_like(counts, size) if mask is None else mask.sum(1)
        k = torch.minimum(counts, valid.to(counts.dtype))
        rest = ascending.logcumsumexp(1)
        place = torch.arange(size, device=hidden.device)
        left = (k - (size - 1))[:, None] + place  # k - m, with all above this one at 1
        # where m > k the logarithm is no number and compares as false; m < k always has a place
        at = torch.where(left.log() + ascending <= rest, place, -1).argmax(1, keepdim=True)
        share, rest = left.gather(1, at).log(), rest.gather(1, at)
    if torch.is_grad_enabled():
        rest = hidden.masked_fill(hidden > ascending.gather(1, at), -math.inf)
        rest = rest.logsumexp(1, keepdim=True)
    return (hidden + (share - rest)).clamp(max=0.0).exp()
