"""An inventory of low-rank skills that every task, or every utterance, mixes in its own way.

    w = normalised sigmoid(z)      A, B = sum_s w_s A_s, B_s, head by head      y' = y + s B A x

Skills are mixed as parameters, before they are applied. With `heads` above 1 input and output are
cut into as many blocks, each with a mixture of its own (multi-head routing; 1 is Polytropon). What
z is, `routing` says: `pooled` predicts it for every utterance from the mean of what goes into the
site, so that no task is named; `task` has a row for each of `tasks`, chosen by the condition
`task`; `mean` gives all skills the same weight (MHR-mu), which makes the whole one LoRA. With
`learns=router` the skills are kept as they are and the routing alone is trained (MHR-z).

Source: https://arxiv.org/abs/2211.03831 (multi-head routing, z and mu); https://arxiv.org/abs/
    2202.13914 section 2 (Polytropon)
Reference: https://github.com/microsoft/mttl, branch mhr_camera_ready; peft/tuners/poly
Differs: routing by pooled features is this project's own. The skills of every head are normalised
    to a sum of one; no discrete routing is drawn in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.blocks import check_frames
from speechadapt.adapters.conditioning import pooled_stream, task_rows
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.limits import Count, Positive
from speechadapt.encoders.sites import Site

_START = 1e-3
_LEAST = 1e-12


@dataclass(frozen=True)
class MhrConfig:
    """Settings of multi-head routing.

    Args:
        skills: Size of the inventory.
        heads: Blocks that are mixed apart; divides the widths of every site.
        rank: Inner width of a skill.
        alpha: Strength: the product is multiplied by alpha / rank.
        routing: Where the mixture comes from: `pooled`, `task` or `mean`.
        tasks: Names of the tasks, where routing is by `task`.
        router_width: Hidden width of the router of pooled features.
        learns: What is trained: `all`, or the `router` alone.
    """

    skills: Count = 8
    heads: Count = 4
    rank: Count = 4
    alpha: Positive = 4.0
    routing: Literal["pooled", "task", "mean"] = "pooled"
    tasks: tuple[str, ...] = ()
    router_width: Count = 16
    learns: Literal["all", "router"] = "all"


class MhrAdapter(Adapter):
    """The skills at one linear map, and who mixes them.

    Args:
        site: A linear map.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is a convolution or a span.
        ConfigError: The heads do not divide the site's widths, or tasks are missing.
    """

    def __init__(self, site: Site, config: MhrConfig, shared: nn.Module | None = None) -> None:
        super().__init__()
        _check(site, config)
        self.config = config
        self.scale = config.alpha / config.rank
        heads, skills, rank = config.heads, config.skills, config.rank
        down = torch.empty(heads, skills, rank, site.dim_in // heads)
        nn.init.uniform_(down, -1 / math.sqrt(site.dim_in), 1 / math.sqrt(site.dim_in))
        up = torch.zeros(heads, skills, site.dim_out // heads, rank)
        self.down: Tensor
        self.up: Tensor
        for name, tensor in (("down", down), ("up", up)):
            if config.learns == "all":
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        self.logits = self.hidden = self.out = None
        size = heads * skills
        if config.routing == "task":
            self.logits = nn.Parameter(torch.empty(len(config.tasks), size))
            nn.init.uniform_(self.logits, -_START, _START)
        elif config.routing == "pooled":
            self.hidden = nn.Linear(site.dim_in, config.router_width)
            self.out = nn.Linear(config.router_width, size)
            # not zero, so that the layer below gets a gradient as soon as this one does
            nn.init.normal_(self.out.weight, std=_START)
            nn.init.zeros_(self.out.bias)

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Add the mixed product.

        Args:
            x: Input of the map.
            y: Its output.
            context: Its mask says which frames are pooled; routing by task reads its `task`.
        """
        weights = self.mixture(x, context)
        down, up = self.mixed(weights)
        if weights.ndim == 2:
            return y + functional.linear(functional.linear(x, down) * self.scale, up)
        narrow = torch.bmm(x, down.transpose(1, 2)) * self.scale
        return y + torch.bmm(narrow, up.transpose(1, 2))

    def mixture(self, x: Tensor, context: Context) -> Float[Tensor, "*batch heads skills"]:
        """Return the weights of the skills, which sum to one in every head.

        Args:
            x: Input of the map.
            context: Mask and conditions.
        """
        shape = (self.config.heads, self.config.skills)
        if self.logits is not None:
            logits = self.logits[task_rows(self.config.tasks, context, len(x), x.device)]
        elif self.hidden is not None and self.out is not None:
            heard = pooled_stream(x, context.mask)
            logits = self.out(functional.relu(self.hidden(heard)))
        else:
            return x.new_full(shape, 1 / self.config.skills)
        weights = logits.sigmoid().reshape(-1, *shape)
        return weights / (weights.sum(-1, keepdim=True) + _LEAST)

    def mixed(
        self, weights: Float[Tensor, "*batch heads skills"]
    ) -> tuple[Float[Tensor, "*batch rank dim_in"], Float[Tensor, "*batch dim_out rank"]]:
        """Return the two factors after mixing.

        Args:
            weights: From `mixture`.
        """
        down = torch.einsum("...hs,hsri->...rhi", weights.to(self.down.dtype), self.down)
        up = torch.einsum("...hs,hsor->...hor", weights.to(self.up.dtype), self.up)
        return down.flatten(-2), up.flatten(-3, -2)


def _check(site: Site, config: MhrConfig) -> None:
    check_frames(site, "mhr")
    if site.read != site.write:
        raise SiteError(
            f"skills were asked for at '{site.role}', which is a span from {site.read} to "
            f"{site.write}. Choose linear maps such as attn.q or ffn.up."
        )
    for width in (site.dim_in, site.dim_out):
        if width % config.heads:
            raise ConfigError(
                f"adapter.heads={config.heads} does not divide the width {width} of "
                f"'{site.role}'. Choose a divisor."
            )
    if (config.routing == "task") != bool(config.tasks):
        raise ConfigError(
            f"adapter.routing={config.routing} with adapter.tasks={list(config.tasks)}: name the "
            "tasks if and only if routing is by task."
        )
    if config.learns == "router" and config.routing == "mean":
        raise ConfigError("adapter.learns=router leaves nothing to train with routing=mean.")


def parameters(site: Site, config: MhrConfig) -> int:
    """Count S r (d_in + d_out) of the skills, unless they are kept, and the router."""
    size = config.heads * config.skills
    skills = config.skills * config.rank * (site.dim_in + site.dim_out)
    width = config.router_width
    router = {
        "task": len(config.tasks) * size,
        "pooled": width * (site.dim_in + 1) + size * (width + 1),
        "mean": 0,
    }
    return router[config.routing] + (skills if config.learns == "all" else 0)


def fixed_factors(adapter: Any, task: str | None = None) -> tuple[Tensor, Tensor]:
    """Return the two factors of an adapter whose mixture hangs on no utterance.

    Args:
        adapter: An `MhrAdapter`.
        task: The task, where routing is by task.

    Raises:
        ConfigError: The mixture is another for every utterance, or there is no such task.
    """
    if adapter.config.routing == "pooled":
        raise ConfigError(
            "skills were to be mixed once and for all, but routing=pooled mixes them anew for "
            "every utterance. Use routing=mean or routing=task."
        )
    conditions: dict[str, Sequence[str]] = {} if task is None else {"task": [task]}
    weights = adapter.mixture(adapter.down.new_zeros(1, 1, 1), Context(conditions=conditions))
    down, up = adapter.mixed(weights)
    return (down, up) if down.ndim == 2 else (down[0], up[0])


METHOD = Method(
    config=MhrConfig,
    adapter=MhrAdapter,
    roles=("attn.q", "attn.k", "attn.v", "attn.out", "ffn.up", "ffn.down"),
    source="https://arxiv.org/abs/2211.03831",
    tiny=MhrConfig(skills=3, heads=2, rank=2, router_width=4),
    parameters=parameters,
)
