"""Which hidden unit of one bottleneck is which of another.

    T = argmin_T sum_ij T_ij |phi_i - phi_j|       T: rows and columns sum to one

phi says what a unit is: its weights, or what it does with some recordings. `assignment` finds the
best permutation; `sinkhorn` a soft one, sharper the lower its temperature.

Source: https://arxiv.org/abs/1910.05653 section 3 (fusion by optimal transport), which
    https://arxiv.org/abs/2308.15982 (MerA) cites; Sinkhorn's iterations in logarithms.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Solver: TypeAlias = Literal["assignment", "sinkhorn"]

_ITERATIONS = 200


def match(
    anchor: Float[Tensor, "units size"],
    other: Float[Tensor, "units size"],
    solver: Solver = "assignment",
    temperature: float = 0.05,
) -> Float[Tensor, "units units"]:
    """Return T, which brings the units of another bottleneck into the anchor's order: `T @ other`.

    Args:
        anchor: One description per unit.
        other: Descriptions of the other's units.
        solver: How T is found.
        temperature: Of `sinkhorn`, in units of the mean distance.
    """
    distance = torch.cdist(anchor.double(), other.double())
    if solver == "assignment":
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

        rows, columns = linear_sum_assignment(distance.cpu().numpy())
        plan = torch.zeros_like(distance)
        plan[torch.as_tensor(rows), torch.as_tensor(columns)] = 1.0
    else:
        plan = _sinkhorn(distance, temperature)
    return plan.to(anchor.dtype)


def _sinkhorn(distance: Tensor, temperature: float) -> Tensor:
    logits = -distance / (temperature * distance.mean()).clamp(min=1e-12)
    for _ in range(_ITERATIONS):
        logits = logits - logits.logsumexp(1, keepdim=True)
        logits = logits - logits.logsumexp(0, keepdim=True)
    return (logits - logits.logsumexp(1, keepdim=True)).exp()
