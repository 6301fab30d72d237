"""One hypernetwork for all layers that generates the adapters of a task or an utterance.

    I = norm(W2 relu(W1 [z_source; z_layer; z_position]))     every weight: a linear head of I
    y' = y + norm_{gamma,beta}(up(g(down(y) + b)) + b')

z_source is the embedding of the task that the condition `task` names (`source=task`), or a map of
what is heard at the site, averaged over the utterance (`source=pooled`), so that no task is named.
gamma and beta start at zero, so nothing changes at first; `initial=normal` starts all heads from a
normal distribution of standard deviation 0.01, as published, which changes little.

Source: https://arxiv.org/abs/2106.04489 section 3 (the shared variant, HyperFormer++)
Reference: https://github.com/rabeehk/hyperformer/tree/56b0f99/seq2seq/adapters
Differs: the exact zero start is the default; a source by pooled features is this project's own; the
    layer norms of the base are not trained unless the attachment's `train_norms` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
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
from speechadapt.core.limits import Count
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site

_HEAD_STD = 1e-2
_EPSILON = 1e-6


@dataclass(frozen=True)
class HyperformerConfig:
    """Settings of the shared hypernetwork.

    Args:
        bottleneck: Width of the generated adapters.
        embedding: Width of the embeddings of source, layer and position, and of I.
        hidden: Width between W1 and W2.
        source: What adapters are generated for: a `task` by name, or the `pooled` utterance.
        tasks: Names of the tasks, where the source is a task.
        activation: What bends the narrow states.
        initial: `zero` starts exactly at the base, `normal` as published.
    """

    bottleneck: Count = 24
    embedding: Count = 64
    hidden: Count = 128
    source: SourceName = "pooled"
    tasks: tuple[str, ...] = ()
    activation: ActivationName = "gelu_tanh"
    initial: Literal["zero", "normal"] = "zero"


class Hypernetwork(Generator):
    """What all sites share: embeddings, the two maps, and one head per generated tensor.

    Args:
        sites: All sites of the attachment.
        config: Its settings.

    Raises:
        ConfigError: Tasks are missing, or named without being used.
        SiteError: The sites are of unlike widths.
    """

    def __init__(self, sites: Sequence[Site], config: HyperformerConfig) -> None:
        places = places_of(sites, "hyperformer")
        size, width, dim = config.embedding, config.bottleneck, places.width
        super().__init__(config.source, config.tasks, size, dim)
        self.places = places
        self.layer = nn.Embedding(self.places.layers, size)
        self.position = nn.Embedding(len(self.places.positions), size)
        self.first = nn.Linear(3 * size, config.hidden)
        self.second = nn.Linear(config.hidden, size)
        self.norm = nn.LayerNorm(size, eps=_EPSILON)
        sizes = {"down": width * dim, "bias": width, "up": width * dim, "shift": dim}
        sizes |= {"gamma": dim, "beta": dim}
        self.heads = nn.ModuleDict({name: nn.Linear(size, n) for name, n in sizes.items()})
        for name, head in self.heads.items():
            assert isinstance(head, nn.Linear)
            nn.init.normal_(head.weight, std=_HEAD_STD)
            nn.init.zeros_(head.bias)
            if config.initial == "zero" and name in ("gamma", "beta"):
                nn.init.zeros_(head.weight)

    def forward(self, role: str, source: Tensor) -> dict[str, Tensor]:
        """Return the generated tensors of one site, flat, one row per row of the batch.

        Args:
            role: The site.
            source: Embedding of the task or the utterance, `[batch, embedding]`.
        """
        layer, position = self.places.table[role]
        z_layer = self.layer.weight[layer].expand(len(source), -1)
        z_position = self.position.weight[position].expand(len(source), -1)
        joined = torch.cat([source, z_layer, z_position], dim=-1)
        inner = self.norm(self.second(functional.relu(self.first(joined))))
        return {name: head(inner) for name, head in self.heads.items()}


class HyperformerAdapter(GeneratedAdapter):
    """The generated adapter after one sub-layer; all its tensors are shared.

    Args:
        site: Where it writes.
        config: Its settings.
        shared: The hypernetwork.

    Raises:
        SiteError: The site is a convolution.
    """

    method = "hyperformer"

    def __init__(
        self, site: Site, config: HyperformerConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__(site, config, shared)
        self.activation = config.activation

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Add the generated, normalised bottleneck.

        Args:
            x: Not read.
            y: Output of the sub-layer.
            context: Its mask says which frames are pooled, or it holds the task.
        """
        generated, made = self.generate(y, context)
        added = functional.layer_norm(generated(y, self.activation), y.shape[-1:])
        total: Tensor = y + added * made["gamma"][:, None] + made["beta"][:, None]
        return total


def shared_parameters(sites: Sequence[Site], config: HyperformerConfig) -> int:
    """Count the embeddings, the two maps and their norm, and the heads."""
    places = places_of(sites, "hyperformer")
    size, hidden, width, dim = config.embedding, config.hidden, config.bottleneck, places.width
    embedded = count_source(config.tasks, size, dim) + size * (
        places.layers + len(places.positions)
    )
    maps = hidden * (3 * size + 1) + size * (hidden + 1) + 2 * size
    return embedded + maps + (size + 1) * (2 * width * dim + width + 3 * dim)


def parameters(site: Site, config: HyperformerConfig) -> int:
    """Count nothing: all parameters are shared."""
    return 0


METHOD = Method(
    config=HyperformerConfig,
    adapter=HyperformerAdapter,
    roles=("attn", "ffn"),
    source="https://arxiv.org/abs/2106.04489",
    tiny=HyperformerConfig(bottleneck=3, embedding=6, hidden=8),
    parameters=parameters,
    shared=Hypernetwork,
    shared_parameters=shared_parameters,
)
