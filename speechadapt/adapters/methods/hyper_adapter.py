"""Adapters generated from the embeddings of languages or of an utterance, and of the layer.

    h = blocks(g(W [z_source; z_layer]))      every weight: Head(h) / sqrt(d_h)
    y' = y + up(g(down(norm_{gamma,beta}(y)) + b)) + b'

The division by the root of h's width d_h keeps the spread of the generated weights the same however
wide the hypernetwork is; without it (`rescaled=false`) it grows with that root. z_source is the
embedding of the task or language that the condition `task` names (`source=task`), or a map of the
utterance as heard at the site (`source=pooled`): an unseen task needs no name.

Source: https://arxiv.org/abs/2205.10835 sections 3 and 3.2 (the rescaling)
Differs: the heads start at the spread of a Xavier start of the generated matrix (the source's
    option), and h is normalised without gain, so that this holds exactly; `up` starts at zero, so
    nothing changes at first; a source by pooled features is this project's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.blocks import ActivationName
from speechadapt.adapters.generated import (
    GeneratedAdapter,
    Generator,
    SourceName,
    count_source,
    places_of,
)
from speechadapt.adapters.spec import Context, Method
from speechadapt.core.limits import Count, CountOrNone
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site

_SMALL = 1e-2


@dataclass(frozen=True)
class HyperAdapterConfig:
    """Settings of the hypernetwork.

    Args:
        bottleneck: Width of the generated adapters.
        width: d_h, the hypernetwork's own.
        embedding: Width of the embeddings of source and layer.
        blocks: Residual blocks within the hypernetwork.
        source: What adapters are generated for: a `task` by name, or the `pooled` utterance.
        tasks: Names of the tasks, where the source is a task.
        activation: What bends the narrow states.
        rescaled: Whether generated weights are divided by the root of d_h.
        initial: `zero` starts `up` at zero, `spread` at the spread of a Xavier start.
    """

    bottleneck: Count = 16
    width: Count = 128
    embedding: Count = 32
    blocks: CountOrNone = 1
    source: SourceName = "pooled"
    tasks: tuple[str, ...] = ()
    activation: ActivationName = "relu"
    rescaled: bool = True
    initial: Literal["zero", "spread"] = "zero"


class Block(nn.Module):
    """A residual block of the hypernetwork: `h + W2 relu(W1 norm(h))`.

    Args:
        width: d_h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, states: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Return the states after the block."""
        inner: Tensor = self.second(functional.relu(self.first(self.norm(states))))
        return states + inner


class HyperNetwork(Generator):
    """What all sites share.

    Args:
        sites: All sites of the attachment.
        config: Its settings.

    Raises:
        ConfigError: Tasks are missing, or named without being used.
        SiteError: The sites are of unlike widths.
    """

    def __init__(self, sites: Sequence[Site], config: HyperAdapterConfig) -> None:
        places = places_of(sites, "hyper_adapter")
        size, dim, bottleneck = config.embedding, places.width, config.bottleneck
        super().__init__(config.source, config.tasks, size, dim)
        self.config, self.places = config, places
        self.layer = nn.Embedding(len(self.places.table), size)
        self.order = {role: number for number, role in enumerate(self.places.table)}
        self.first = nn.Linear(2 * size, config.width)
        self.blocks = nn.ModuleList(Block(config.width) for _ in range(config.blocks))
        xavier = math.sqrt(2 / (dim + bottleneck))
        up = 0.0 if config.initial == "zero" else xavier
        spreads = {
            "down": (bottleneck * dim, xavier),
            "bias": (bottleneck, _SMALL),
            "up": (bottleneck * dim, up),
            "shift": (dim, 0.0 if config.initial == "zero" else _SMALL),
            "gamma": (dim, _SMALL),
            "beta": (dim, _SMALL),
        }
        self.heads = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(count, config.width) * spread)
                for name, (count, spread) in spreads.items()
            }
        )

    def forward(self, role: str, source: Tensor) -> dict[str, Tensor]:
        """Return the generated tensors of one site, flat, one row per row of the batch.

        Args:
            role: The site.
            source: Embedding of the task or the utterance, `[batch, embedding]`.
        """
        z_layer = self.layer.weight[self.order[role]].expand(len(source), -1)
        states = functional.relu(self.first(torch.cat([source, z_layer], dim=-1)))
        for block in self.blocks:
            states = block(states)
        states = functional.layer_norm(states, states.shape[-1:])
        if self.config.rescaled:
            states = states / math.sqrt(self.config.width)
        return {name: functional.linear(states, head) for name, head in self.heads.items()}


class HyperAdapter(GeneratedAdapter):
    """The generated adapter after one sub-layer; all its tensors are shared.

    Args:
        site: Where it writes.
        config: Its settings.
        shared: The hypernetwork.

    Raises:
        SiteError: The site is a convolution.
    """

    method = "hyper_adapter"

    def __init__(
        self, site: Site, config: HyperAdapterConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__(site, config, shared)
        self.activation = config.activation

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Add the generated bottleneck.

        Args:
            x: Not read.
            y: Output of the sub-layer.
            context: Its mask says which frames are pooled, or it holds the task.
        """
        generated, made = self.generate(y, context)
        normed = functional.layer_norm(y, y.shape[-1:])
        normed = normed * (1 + made["gamma"][:, None]) + made["beta"][:, None]
        return y + generated(normed, self.activation)


def shared_parameters(sites: Sequence[Site], config: HyperAdapterConfig) -> int:
    """Count the embeddings, the first map, the blocks and the heads."""
    places = places_of(sites, "hyper_adapter")
    size, width, dim, bottleneck = config.embedding, config.width, places.width, config.bottleneck
    source = count_source(config.tasks, size, dim)
    block = 2 * width + 2 * width * (width + 1)
    trunk = width * (2 * size + 1) + config.blocks * block
    heads = width * (2 * bottleneck * dim + bottleneck + 3 * dim)
    return source + size * len(sites) + trunk + heads


def parameters(site: Site, config: HyperAdapterConfig) -> int:
    """Count nothing: all parameters are shared."""
    return 0


METHOD = Method(
    config=HyperAdapterConfig,
    adapter=HyperAdapter,
    roles=("attn", "ffn"),
    source="https://arxiv.org/abs/2205.10835",
    tiny=HyperAdapterConfig(bottleneck=3, width=8, embedding=6),
    parameters=parameters,
    shared=HyperNetwork,
    shared_parameters=shared_parameters,
)
