"""Several adapters of one kind as one product: their branches side by side.

No loop runs over the adapters: K bottlenecks of width r are one of width K r, whose inner states
are weighted in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from speechadapt.adapters.blocks import activation
from speechadapt.adapters.branch import Branch


class Bank:
    """Branches of one kind side by side: their projections are one matrix each.

    A layer norm of each branch is one norm without gain for all, the gains and shifts being folded
    into the projections behind it.

    Args:
        branches: At least one, all of one `kind`.

    Attributes:
        down: `[widths, dim_in]`, all widths one after the other.
        bias: `[widths]`.
        up: `[dim_out, widths]`.
        shift: `[branches, dim_out]`.
        owner: Number of the branch that each of the widths belongs to.
        belongs: The same as ones and zeros, `[widths, branches]`.
    """

    def __init__(self, branches: Sequence[Branch]) -> None:
        first = branches[0]
        self.reads = first.reads
        self.bend = activation(first.bend)
        self.normed, self.epsilon = first.norm is not None, first.epsilon
        self.down = torch.cat([_folded(one) for one in branches])
        self.bias = torch.cat([_folded_bias(one) for one in branches])
        self.up = torch.cat([one.up for one in branches], dim=1)
        self.shift = torch.stack([_shift(one) for one in branches])
        widths = torch.tensor([one.down.shape[0] for one in branches])
        self.owner = torch.repeat_interleave(widths).to(self.down.device)
        self.belongs = functional.one_hot(self.owner, len(branches)).to(self.down.dtype)

    def inner(
        self, x: Float[Tensor, "batch frames _"], y: Float[Tensor, "batch frames _"]
    ) -> Float[Tensor, "batch frames widths"]:
        """Return the bent narrow states of all branches.

        Args:
            x: The site's input.
            y: Its output.
        """
        u = {"input": x, "output": y}.get(self.reads)
        u = x + y if u is None else u
        if self.normed:
            u = functional.layer_norm(u, u.shape[-1:], eps=self.epsilon)
        inner: Tensor = self.bend(functional.linear(u, self.down, self.bias))
        return inner

    def weighted(
        self, inner: Float[Tensor, "batch frames widths"], weights: Float[Tensor, "*#rows branches"]
    ) -> Float[Tensor, "batch frames dim_out"]:
        """Return the weighted sum of what the branches add.

        Args:
            inner: From `inner`.
            weights: One number for each branch: for all, by row or by frame.
        """
        scaled = inner * weights.index_select(-1, self.owner)
        return functional.linear(scaled, self.up) + weights @ self.shift

    def scores(
        self,
        inner: Float[Tensor, "batch frames widths"],
        query: Float[Tensor, "batch frames size"],
        key: Float[Tensor, "size dim_out"],
    ) -> Float[Tensor, "batch frames branches"]:
        """Return `query . (key added)` for what each branch adds, which is never made.

        Args:
            inner: From `inner`.
            query: One vector for each frame.
            key: The map from what is added to the query's space.
        """
        seen = functional.linear(query, (key @ self.up).t())
        return (seen * inner) @ self.belongs + functional.linear(query, self.shift @ key.t())


def _folded(branch: Branch) -> Tensor:
    return branch.down if branch.norm is None else branch.down * branch.norm[0]


def _folded_bias(branch: Branch) -> Tensor:
    own = branch.down.new_zeros(branch.down.shape[0]) if branch.bias is None else branch.bias
    return own if branch.norm is None else own + branch.down @ branch.norm[1]


def _shift(branch: Branch) -> Tensor:
    return branch.up.new_zeros(branch.up.shape[0]) if branch.shift is None else branch.shift
