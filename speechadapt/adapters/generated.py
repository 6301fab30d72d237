"""Bottlenecks whose weights are generated: one pair of projections for each row of a batch.

added = up_b(bend(down_b(norm(u)))) of row b        down_b, up_b: from a hypernetwork

A hypernetwork is a `Generator`, shared by all sites; at each of them stands a `GeneratedAdapter`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters.blocks import ActivationName, activation, check_frames
from speechadapt.adapters.conditioning import generating_rows
from speechadapt.adapters.spec import Adapter, Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site

SourceName: TypeAlias = Literal["pooled", "task"]

_LAYER = re.compile(r"layer\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Generated:
    """Weights of a bottleneck, one row for each row of the batch.

    Args:
        down: `[batch, width, dim]`.
        bias: `[batch, width]`.
        up: `[batch, dim, width]`.
        shift: `[batch, dim]`.
    """

    down: Float[Tensor, "batch width dim"]
    bias: Float[Tensor, "batch width"]
    up: Float[Tensor, "batch dim width"]
    shift: Float[Tensor, "batch dim"]

    def __call__(self, states: Frames, bend: ActivationName) -> Frames:
        """Return what the bottlenecks make of the rows.

        Args:
            states: `[batch, frames, dim]`.
            bend: Name of the activation between the projections.
        """
        narrow = torch.baddbmm(self.bias[:, None], states, self.down.transpose(1, 2))
        made: Tensor = activation(bend)(narrow)
        return torch.baddbmm(self.shift[:, None], made, self.up.transpose(1, 2))


@dataclass(frozen=True)
class Places:
    """The sites of one attachment as numbers: layers and positions within a layer.

    Args:
        layers: Number of layers that are adapted.
        positions: Names of the positions, in order.
        width: The width that all sites have.
        table: Layer and position by role.
    """

    layers: int
    positions: tuple[str, ...]
    width: int
    table: Mapping[str, tuple[int, int]]


def places_of(sites: Sequence[Site], method: str) -> Places:
    """Number the sites of a method that shares one hypernetwork.

    Args:
        sites: In the encoder's order.
        method: The method's name, for the message.

    Raises:
        SiteError: A site is in no layer, or the sites write unlike widths.
    """
    found: dict[str, tuple[str, str]] = {}
    for site in sites:
        match = _LAYER.fullmatch(site.role)
        if match is None or site.dim_out != sites[0].dim_out:
            raise SiteError(
                f"adapter '{method}' generates one size of weights for the layers, but "
                f"'{site.role}' is in none or writes another width than '{sites[0].role}'. Choose "
                "roles such as attn and ffn."
            )
        found[site.role] = (match[1], match[2])
    layers = list(dict.fromkeys(layer for layer, _ in found.values()))
    positions = tuple(dict.fromkeys(position for _, position in found.values()))
    table = {
        role: (layers.index(layer), positions.index(position))
        for role, (layer, position) in found.items()
    }
    return Places(len(layers), positions, sites[0].dim_out, table)


class Generator(nn.Module):
    """A hypernetwork that all sites of an attachment share.

    Args:
        source: What adapters are generated for: a `task` by name, or the `pooled` utterance.
        names: Names of the tasks, where the source is a task.
        size: Width of the embedding of the source.
        dim: Width of the states that are pooled.

    Raises:
        ConfigError: Tasks are missing, or named without being used.
    """

    def __init__(self, source: SourceName, names: Sequence[str], size: int, dim: int) -> None:
        super().__init__()
        if (source == "task") != bool(names):
            raise ConfigError(
                f"adapter.source={source} with adapter.tasks={list(names)}: name the tasks if and "
                "only if the source is a task."
            )
        self.names = tuple(names)
        self.tasks = nn.Embedding(len(names), size) if names else None
        self.heard = None if names else nn.Linear(dim, size)

    @abstractmethod
    def forward(self, role: str, source: Tensor) -> dict[str, Tensor]:
        """Return the generated tensors of one site, flat, one row per row of the batch.

        Args:
            role: The site.
            source: Embedding of the task or the utterance, `[batch, embedding]`.

        Returns:
            `down`, `bias`, `up` and `shift` of a bottleneck, and what else the method uses.
        """


class GeneratedAdapter(Adapter):
    """The generated adapter after one sub-layer; all its tensors are shared.

    Args:
        site: Where it writes.
        config: Its settings.
        shared: The method's `Generator`.

    Attributes:
        method: Name of the method, for messages.

    Raises:
        SiteError: The site is a convolution.
    """

    method: ClassVar[str]

    def __init__(self, site: Site, config: object, shared: nn.Module | None = None) -> None:
        super().__init__()
        check_frames(site, self.method)
        assert isinstance(shared, Generator)
        self.network = shared
        self.role = site.role

    def generate(self, y: Frames, context: Context) -> tuple[Generated, dict[str, Tensor]]:
        """Return the bottlenecks of the rows, and everything that was generated.

        Args:
            y: Output of the sub-layer.
            context: Its mask says which frames are pooled, or it holds the task.
        """
        network, rows, dim = self.network, len(y), y.shape[-1]
        heard = generating_rows(network.tasks, network.heard, network.names, y, context)
        made: dict[str, Tensor] = network(self.role, heard)
        down, up = made["down"].reshape(rows, -1, dim), made["up"].reshape(rows, dim, -1)
        return Generated(down, made["bias"], up, made["shift"]), made


def count_source(names: Sequence[str], size: int, dim: int) -> int:
    """Return how many parameters a `Generator` has for its source.

    Args:
        names: Names of the tasks; empty where the utterance is pooled.
        size: Width of the embedding of the source.
        dim: Width of the states that are pooled.
    """
    return len(names) * size if names else size * (dim + 1)
