"""Principal components of a frozen weight, another block of them trained by each of K workers.

    W0 = U S V^T,   B_i = U_i S_i^(1/2) / sqrt(s),  A_i = S_i^(1/2) V_i^T / sqrt(s)   of block i
    y' = y + s sum_i (b_i A_i + B_i a_i) x,   a = b = 0 at the start

Worker i learns a_i and b_i from its own share of the batch, at the weight that all of them changed;
A_i and B_i never move. The change has rank up to 2 r K against r of LoRA and 2 r of PiSSA at equal
tensors per worker. It is one product, `s [b, B] [A; a]`: it merges into the original weight and
leaves as an ordinary LoRA of that rank. Workers are processes or shares of a batch (see
`adapters.workers`); with an optimiser that treats entries one by one both give the same weights.

Source: https://arxiv.org/abs/2505.18777 section 3
Reference: https://github.com/MuLabPKU/HD-PiSSA/blob/20bda4c/hd_pissa.py
Differs: there the steps are applied to a dense copy of the weight and no adapter is left, gradients
    come from a term of size 1e-16, and Adam is written by hand. There each step also adds the
    product of its two steps, da_i and db_i, to the change, which no product of this rank can hold;
    it is left out, and `second_order_error` says how much that is at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
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
    weight_of,
)
from speechadapt.adapters.spec import Context, Method, WeightDelta
from speechadapt.adapters.workers import exchange, owned, shares
from speechadapt.core.limits import Count, Range
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class HdPissaConfig:
    """Settings of HD-PiSSA.

    Args:
        rank: Components that each worker trains; all workers together at most those of the weight.
        workers: Number of workers; a multiple of the processes, where there are several.
        scale: s, alpha / rank of the LoRA it equals; 1 in the source's recipes.
    """

    rank: Count = 4
    workers: Count = 4
    scale: Annotated[float, Range(above=0.0)] = 1.0


class HdPissaAdapter(LowRankAdapter):
    """What the workers have learned at one site.

    Args:
        site: A linear map or a convolution of one dimension.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is of another kind.
        ConfigError: The workers' ranks are together above what the site's weight can have.
    """

    start_down: Tensor
    start_up: Tensor
    dropped: Tensor

    def __init__(self, site: Site, config: HdPissaConfig, shared: nn.Module | None) -> None:
        super().__init__()
        check_rank(site, config.rank * config.workers, "rank x adapter.workers")
        self.conv = site.conv
        self.scale = config.scale
        self.workers = config.workers
        taps = () if site.conv is None else (site.conv.kernel,)
        groups = 1 if site.conv is None else site.conv.groups
        down = torch.zeros(config.workers, config.rank, site.dim_in // groups, *taps)
        up = torch.zeros(config.workers, site.dim_out, config.rank, *(1 for _ in taps))
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.register_buffer("start_down", down.clone())
        self.register_buffer("start_up", up.clone())
        self.register_buffer("dropped", torch.zeros(()))
        self._before: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def prepare(self, module: nn.Module) -> None:
        """Give every worker its block of the frozen weight's components, largest first.

        Args:
            module: The frozen module at the site; it is only read.
        """
        weight = weight_of(module).flatten(1).float()
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        rank = self.down.shape[1]
        roots = (values / self.scale).sqrt()
        for worker in range(self.workers):
            block = slice(worker * rank, (worker + 1) * rank)
            up, down = left[:, block] * roots[block], roots[block, None] * right[block]
            self.start_up[worker].copy_(up.reshape(self.up.shape[1:]))
            self.start_down[worker].copy_(down.reshape(self.down.shape[1:]))

    def leave(self, x: Stream, y: Stream, context: Context) -> Stream:
        """Add the change to the output; what it adds does not depend on how rows are shared.

        Args:
            x: Input of the site.
            y: Its output.
            context: Not read.
        """
        if not torch.is_grad_enabled():
            return y + self._changed(x, self.down, self.up)
        if self._before is None:
            self._before = self.down.detach().clone(), self.up.detach().clone()
        parts = [
            self._changed(x[rows], owned(self.down, worker), owned(self.up, worker))
            for worker, rows in shares(len(x), self.workers)
        ]
        return y + torch.cat(parts)

    def _changed(self, x: Stream, down: Tensor, up: Tensor) -> Stream:
        factors = self._product(down, up)
        return product(x, factors.down, factors.up, self.conv, self.scale)

    def _product(self, down: Tensor, up: Tensor) -> Factors:
        return Factors(
            down=torch.cat([self.start_down, down]).flatten(0, 1),
            up=_side_by_side(torch.cat([up, self.start_up])),
            scale=self.scale,
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in what other processes' workers learned, and note what the step left out."""
        exchange(self.down)
        exchange(self.up)
        if self._before is not None:
            down = (self.down - self._before[0]).flatten(0, 1)
            up = _side_by_side(self.up - self._before[1])
            self.dropped += self.scale * _norm(down, up)
            self._before = None

    @torch.no_grad()
    def second_order_error(self) -> float:
        """Return the largest share of the change that the left-out products may amount to.

        The steps' products are added up by their norms, so the true share is at most this.
        """
        factors = self._product(self.down, self.up)
        change = self.scale * _norm(factors.down, factors.up)
        return float(self.dropped / change) if change > 0 else 0.0

    def delta(self, module: nn.Module) -> WeightDelta:
        """Return the change of the weight (see `LowRankAdapter`)."""
        return self.factors(module).delta()

    def factors(self, module: nn.Module) -> Factors:
        """Return the product of rank 2 r K (see `LowRankAdapter`)."""
        return self._product(self.down, self.up)


def _side_by_side(
    ups: Float[Tensor, "workers out rank ..."],
) -> Float[Tensor, "out ranks ..."]:
    return ups.transpose(0, 1).flatten(1, 2)


def _norm(down: Float[Tensor, "rank ..."], up: Float[Tensor, "out rank ..."]) -> Tensor:
    """Return the Frobenius norm of up times down without forming the product."""
    narrow, wide = up.flatten(1).float(), down.flatten(1).float()
    return ((narrow.T @ narrow) * (wide @ wide.T)).sum().clamp(min=0.0).sqrt()


def _prepare(adapter: HdPissaAdapter, module: nn.Module) -> None:
    adapter.prepare(module)


def _after_step(adapters: Sequence[HdPissaAdapter], step: int) -> None:
    for adapter in adapters:
        adapter.after_step()


def _figures(adapters: Sequence[HdPissaAdapter]) -> Mapping[str, float]:
    return {"second_order_error": max(one.second_order_error() for one in adapters)}


def _count(site: Site, config: HdPissaConfig) -> int:
    rank = config.rank * config.workers
    return num_parameters(site, rank, depthwise_rank=rank)


METHOD = Method(
    config=HdPissaConfig,
    adapter=HdPissaAdapter,
    roles=LINEAR_ROLES,
    source="https://arxiv.org/abs/2505.18777",
    tiny=HdPissaConfig(rank=1, workers=2),
    parameters=_count,
    prepare=_prepare,
    weight_delta=weight_delta,
    after_step=_after_step,
    figures=_figures,
    learning_rate=5e-4,
)
