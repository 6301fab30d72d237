"""A second attention beside a frozen self-attention, whose parts stand at the maps of that one.

    attn.q, attn.k, attn.v    leave queries, keys and values for the adapter at attn.out
    attn.out                  attends, and adds the result through a map that starts at zero

Rows of a batch may belong to one recording, as its channels or its chunks: the condition
`recording` names it for each row. A row without a name is a recording of its own.

Source: https://arxiv.org/abs/2312.16693 and https://arxiv.org/abs/2412.03632, which both add an
attention in this way.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.lowrank import bias_of, weight_of
from speechadapt.adapters.spec import Adapter, Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site

RECORDING = "recording"
ROLES = ("attn.q", "attn.k", "attn.v", "attn.out")
_numbers = itertools.count()


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of one layer.

    Args:
        query: `[batch, heads, frames, width]`.
        key: Likewise.
        value: Likewise.
    """

    query: Float[Tensor, "batch heads frames width"]
    key: Float[Tensor, "batch heads frames width"]
    value: Float[Tensor, "batch heads frames width"]

    def rows(self, index: Tensor) -> Heads:
        """Return those of some rows.

        Args:
            index: Numbers of the rows.
        """
        return Heads(*(one.index_select(0, index) for one in (self.query, self.key, self.value)))


class Meeting(nn.Module):
    """What the adapters of one attachment share: where they leave what others are to find.

    Args:
        sites: All sites of the attachment.
        method: The method's name, for messages.

    Raises:
        SiteError: A site is no map of a self-attention, or a layer lacks one of the four.
    """

    def __init__(self, sites: Sequence[Site], method: str) -> None:
        super().__init__()
        _check_whole(sites, method)
        self.number = next(_numbers)

    def leave(self, role: str, states: Frames, context: Context) -> None:
        """Keep what a map of the layer puts out.

        Args:
            role: The map's role.
            states: What it puts out.
            context: Of the rows.
        """
        context.kept[self._name(role)] = states

    def take(self, role: str, heads: int, context: Context) -> Heads:
        """Return what was left in the layer, in heads, and forget it.

        Args:
            role: Role of the layer's `attn.out`.
            heads: Number of heads.
            context: Of the rows.
        """
        layer = role.removesuffix("out")
        found = [context.kept.pop(self._name(layer + one)) for one in "qkv"]
        split = (one.reshape(*one.shape[:2], heads, -1).transpose(1, 2) for one in found)
        return Heads(*split)

    def _name(self, role: str) -> str:
        return f"{self.number}|{role}"


class FrozenMap(Adapter):
    """Leaves what the frozen map puts out.

    Args:
        site: A map of the self-attention.
        meeting: Where to leave it.
    """

    def __init__(self, site: Site, meeting: Meeting) -> None:
        super().__init__()
        self.role, self.meeting = site.role, meeting

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Keep the output and pass it on as it is."""
        self.meeting.leave(self.role, y, context)
        return y


class CopiedMap(Adapter):
    """Leaves what a trained copy of the map makes of its input.

    Keys get no bias: it would shift all scores of a query alike, which changes nothing.

    Args:
        site: A map of the self-attention.
        meeting: Where to leave it.
    """

    def __init__(self, site: Site, meeting: Meeting) -> None:
        super().__init__()
        self.role, self.meeting = site.role, meeting
        self.weight = nn.Parameter(torch.zeros(site.dim_out, site.dim_in))
        self.bias = nn.Parameter(torch.zeros(site.dim_out)) if _has_bias(site) else None

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Keep what the copy makes of the input; pass the frozen map's output on as it is."""
        self.meeting.leave(self.role, functional.linear(x, self.weight, self.bias), context)
        return y

    @torch.no_grad()
    def copy(self, module: nn.Module) -> None:
        """Start from the frozen map.

        Args:
            module: The frozen map, which is only read.
        """
        self.weight.copy_(weight_of(module))
        bias = bias_of(module)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)


class SecondAttention(Adapter, ABC):
    """Attends with what the layer's other adapters left, and adds the result.

    Args:
        site: The output map of the self-attention.
        meeting: Where the others leave it.
        strength: What the result is multiplied by.
    """

    def __init__(self, site: Site, meeting: Meeting, strength: float) -> None:
        super().__init__()
        self.role, self.meeting = site.role, meeting
        self.heads, self.strength = site.heads, strength
        self.out = nn.Linear(site.dim_in, site.dim_out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Add the second attention to the output of the frozen one.

        Args:
            x: Not read.
            y: Output of the frozen attention.
            context: Holds the condition `recording`, where rows belong together.

        Raises:
            ConfigError: The condition has another number of entries than there are rows.
        """
        return self.attend(self.meeting.take(self.role, self.heads, context), y, context)

    @abstractmethod
    def attend(self, found: Heads, y: Frames, context: Context) -> Frames:
        """Return `y` with what rows find in one another.

        Args:
            found: Queries, keys and values.
            y: Output of the frozen attention.
            context: What else is known.
        """

    def added(self, states: Float[Tensor, "batch heads frames width"]) -> Frames:
        """Return what is added for the attention's result.

        Args:
            states: That result, in heads.
        """
        merged: Tensor = self.out(states.transpose(1, 2).flatten(2))
        return self.strength * merged


def first_rows(context: Context, rows: int) -> list[int]:
    """Return for each row the first one of its recording; its own number where it is alone.

    Where rows are streams (`Context.streams`), each stream meets its like of the other rows alone.

    Args:
        context: Holds the condition `recording`: a name for each row, or None for one alone.
        rows: Number of rows.

    Raises:
        ConfigError: The condition has another number of entries.
    """
    given = context.conditions.get(RECORDING)
    if given is None:
        return list(range(rows))
    names = given.tolist() if isinstance(given, Tensor) else list(given)
    if len(names) != rows:
        raise ConfigError(
            f"the condition '{RECORDING}' has {len(names)} entries for {rows} rows. "
            "Give one name per row, None for a row that belongs to no other."
        )
    first: dict[Any, int] = {}
    return [
        row if name is None else first.setdefault((name, row % context.streams), row)
        for row, name in enumerate(names)
    ]


def copy_frozen(adapter: Adapter, module: nn.Module) -> None:
    """Start a copied map from the frozen one; the `prepare` of a method with such maps.

    Args:
        adapter: Any adapter of the method.
        module: The frozen module at its site.
    """
    if isinstance(adapter, CopiedMap):
        adapter.copy(module)


def map_parameters(site: Site) -> int:
    """Count d^2 + d at a copied map or the output, d^2 at the keys, which have no bias."""
    return site.dim_out * (site.dim_in + _has_bias(site))


def _has_bias(site: Site) -> bool:
    return not site.role.endswith(".k")


def _check_whole(sites: Sequence[Site], method: str) -> None:
    roles = {site.role for site in sites}
    for role in sorted(roles):
        layer = role.rpartition(".")[0]
        wanted = [f"{layer}.{one}" for one in ("q", "k", "v", "out")]
        missing = [one for one in wanted if one not in roles]
        if not layer.endswith(".attn") or missing:
            found = f"'{missing[0]}' is not among them" if layer.endswith(".attn") else f"'{role}'"
            raise SiteError(
                f"adapter '{method}' stands at the four maps of whole self-attentions, but of the "
                f"chosen roles {found}. Choose layers, such as roles=['layer.[3-5].attn.*']."
            )
