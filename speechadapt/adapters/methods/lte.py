"""Low-rank heads that workers train apart and merge every T steps, to learn weights from scratch.

    M = s / N sum_n up_n down_n as at the last merge
    worker n:  y' = y + M x + s (up_n down_n - its value at the last merge) x
    used:      y' = y + s / N sum_n up_n down_n x                    s = alpha / r

Between merges no worker sees what the others learn, so processes have nothing to tell each other.
Heads and the optimiser's state outlive a merge. The change is a product of rank up to N r, so N r
should reach the width of the weight; it merges into it. With T = 1 it is a LoRA of N heads, each
of which learns from its share of the rows. Workers are processes or shares of a batch (see
`adapters.workers`); with an optimiser that does not mind the gradient's scale both give the same
weights.

Source: https://arxiv.org/abs/2402.16828 section 3
Reference: https://github.com/minyoungg/LTE (its default, heads that are not reset)
Differs: the frozen weight is never written and no worker keeps a copy of it, because the sum of all
    merges is the mean of the heads; what is used between merges is the heads as they are, not as
    they were at the last merge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechadapt.adapters.lowrank import (
    LINEAR_ROLES,
    Factors,
    LowRankAdapter,
    Stream,
    check_rank,
    num_parameters,
    product,
    weight_delta,
)
from speechadapt.adapters.spec import Context, Method, WeightDelta
from speechadapt.adapters.workers import exchange, shares
from speechadapt.core.limits import Count, Positive
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class LteConfig:
    """Settings of LoRA-the-Explorer.

    Args:
        heads: Workers, each with a head of its own; a multiple of the processes, where there are
            several.
        rank: Inner width of each head.
        alpha: Strength: a head's product is multiplied by alpha / rank.
        merge_every: Steps from one merge to the next.
    """

    heads: Count = 4
    rank: Count = 16
    alpha: Positive = 256.0
    merge_every: Count = 10


class LteAdapter(LowRankAdapter):
    """The heads at one site.

    Args:
        site: A linear map or a convolution of one dimension.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is of another kind.
        ConfigError: The rank is above what the site's weight can have.
    """

    merged_down: Tensor
    merged_up: Tensor
    merges: Tensor

    def __init__(self, site: Site, config: LteConfig, shared: nn.Module | None) -> None:
        super().__init__()
        check_rank(site, config.rank)
        self.conv = site.conv
        self.heads = config.heads
        self.scale = config.alpha / config.rank
        self.merge_every = config.merge_every
        taps = () if site.conv is None else (site.conv.kernel,)
        groups = 1 if site.conv is None else site.conv.groups
        down = torch.empty(config.heads, config.rank, site.dim_in // groups, *taps)
        for head in down:
            nn.init.orthogonal_(head.flatten(1))
        down *= math.sqrt(down[0, 0].numel() / config.rank)
        up = torch.zeros(config.heads, site.dim_out, config.rank, *(1 for _ in taps))
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.register_buffer("merged_down", down.clone())
        self.register_buffer("merged_up", up.clone())
        self.register_buffer("merges", torch.zeros((), dtype=torch.int64))

    def leave(self, x: Stream, y: Stream, context: Context) -> Stream:
        """Add the mean of the heads, in training what each worker knows of it.

        Args:
            x: Input of the site.
            y: Its output.
            context: Not read.
        """
        if not self.training:
            return y + self._mean(x, self.down, self.up)
        parts = [self._own(x[rows], head) for head, rows in shares(len(x), self.heads)]
        return y + self._mean(x, self.merged_down, self.merged_up) + torch.cat(parts)

    def _mean(self, x: Stream, down: Tensor, up: Tensor) -> Stream:
        found = self._product(down, up)
        return product(x, found.down, found.up, self.conv, found.scale)

    def _own(self, x: Stream, head: int) -> Stream:
        """Return what a head has learned since the last merge."""
        down = torch.cat([self.down[head], self.merged_down[head]])
        up = torch.cat([self.up[head], -self.merged_up[head]], dim=1)
        return product(x, down, up, self.conv, self.scale)

    def _product(self, down: Tensor, up: Tensor) -> Factors:
        return Factors(
            down=down.flatten(0, 1),
            up=up.transpose(0, 1).flatten(1, 2),
            scale=self.scale / self.heads,
        )

    @torch.no_grad()
    def merge(self) -> None:
        """Take in the heads of other processes and go on from the mean of all."""
        exchange(self.down)
        exchange(self.up)
        self.merged_down.copy_(self.down)
        self.merged_up.copy_(self.up)
        self.merges += 1

    def delta(self, module: nn.Module) -> WeightDelta:
        """Return the change of the weight (see `LowRankAdapter`)."""
        return self.factors(module).delta()

    def factors(self, module: nn.Module) -> Factors:
        """Return the product of rank N r (see `LowRankAdapter`)."""
        return self._product(self.down, self.up)


def head_bytes(adapter: LteAdapter) -> int:
    """Return the bytes of one head at one site: what its worker sends at a merge.

    Args:
        adapter: The heads at the site.
    """
    return sum(part[0].numel() * part.element_size() for part in (adapter.down, adapter.up))


def _after_step(adapters: Sequence[LteAdapter], step: int) -> None:
    for adapter in adapters:
        if step % adapter.merge_every == 0:
            adapter.merge()


def _figures(adapters: Sequence[LteAdapter]) -> Mapping[str, float]:
    return {
        "merges": float(adapters[0].merges),
        "bytes_sent_by_a_worker": float(sum(int(one.merges) * head_bytes(one) for one in adapters)),
    }


def _count(site: Site, config: LteConfig) -> int:
    return config.heads * num_parameters(site, config.rank, depthwise_rank=config.rank)


METHOD = Method(
    config=LteConfig,
    adapter=LteAdapter,
    roles=LINEAR_ROLES,
    source="https://arxiv.org/abs/2402.16828",
    tiny=LteConfig(heads=2, rank=2, alpha=4.0, merge_every=2),
    parameters=_count,
    weight_delta=weight_delta,
    after_step=_after_step,
    figures=_figures,
)
