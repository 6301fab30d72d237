"""How far two passes over one batch are apart, where chance makes them differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

# class scores of a second pass, and the positions that count (None: all)
SecondPass: TypeAlias = Callable[[], tuple[Tensor, Tensor | None]]


def disagreement(
    first: Float[Tensor, "*positions classes"],
    second: Float[Tensor, "*positions classes"],
    valid: Bool[Tensor, "*positions"] | None = None,
) -> Float[Tensor, ""]:
    """Return half the sum of both Kullback-Leibler divergences, in nats, averaged over positions.

    Each distribution is drawn to the other as it stands: the one that is aimed at gets no gradient.

    Source: https://arxiv.org/abs/2312.02923 section 3.

    Args:
        first: Class scores of one pass.
        second: Those of the other.
        valid: Positions that count; None takes all.
    """
    one, other = functional.log_softmax(first, -1), functional.log_softmax(second, -1)
    apart = 0.5 * (_divergence(one, other.detach()) + _divergence(other, one.detach()))
    return apart.mean() if valid is None else apart[valid].mean()


def _divergence(found: Tensor, wanted: Tensor) -> Tensor:
    return functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
