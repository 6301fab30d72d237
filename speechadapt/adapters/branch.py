"""What an adapter adds, taken apart, so that several adapters can run as one product.

    added = up(bend(down(norm(u)))) + shift        u: the site's input x, its output y, or x + y

An adapter that adds such a branch to the output names it by `Adapter.branch`; scales are part of
`up` and `shift`. Low-rank changes have no bend, bottlenecks have one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

Reads: TypeAlias = Literal["input", "output", "sum"]
ActivationName: TypeAlias = Literal[
    "relu", "leaky_relu", "gelu", "gelu_tanh", "silu", "tanh", "none"
]


@dataclass(frozen=True)
class Branch:
    """One adapter's branch at one site, its tensors as they are now.

    Args:
        reads: What u is.
        down: `[width, dim_in]`.
        up: `[dim_out, width]`, scaled.
        bend: Name of the activation, see `blocks.activation`.
        bias: `[width]`, added before the bend; None adds nothing.
        shift: `[dim_out]`, added at the end, scaled; None adds nothing.
        norm: Gain and shift of a layer norm over u; None where there is none.
        epsilon: Of that norm.
    """

    reads: Reads
    down: Float[Tensor, "width dim_in"]
    up: Float[Tensor, "dim_out width"]
    bend: ActivationName = "none"
    bias: Float[Tensor, " width"] | None = None
    shift: Float[Tensor, " dim_out"] | None = None
    norm: tuple[Tensor, Tensor] | None = None
    epsilon: float = 1e-5

    @property
    def kind(self) -> tuple[object, ...]:
        """What branches must have in common to run as one product."""
        shape = (self.down.shape[1], self.up.shape[0])
        return (self.reads, self.bend, self.norm is not None, self.epsilon, *shape)
