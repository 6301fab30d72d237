"""Low-rank adaptation that starts from the principal components of the frozen weight.

    W0 = U S V^T,   B0 = U_r S_r^(1/2) / sqrt(s),   A0 = S_r^(1/2) V_r^T / sqrt(s)
    y' = y + s ((B0 + B)(A0 + A) - B0 A0) x = y + s (B (A0 + A) + B0 A) x,   A = B = 0 at the start

The change is a product of rank 2r against the original weight, `s [B, B0] [A0 + A; A]`: it merges,
and it leaves as an ordinary LoRA of that rank. At a convolution the weight is decomposed as the
matrix `[out, in * kernel]`, at a depthwise one as `[channels, kernel]`.

Source: https://arxiv.org/abs/2404.02948 section 3
Reference: https://github.com/huggingface/peft/blob/5d602fdbff/src/peft/tuners/lora/layer.py
Differs: the frozen weight is never edited; what is trained is the distance from the start, so the
    identity is exact, low precision loses nothing to cancellation, and weight decay pulls towards
    the frozen weight instead of towards a weight without its principal components.
"""

from __future__ import annotations

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
from speechadapt.core.limits import Count, CountOrNone, Range
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class PissaConfig:
    """Settings of PiSSA.

    Args:
        rank: Principal components that are trained.
        scale: s, alpha / rank of the LoRA it equals; 1 in the source's recipes.
        iterations: Power iterations of a randomised decomposition; 0 computes the exact one.
    """

    rank: Count = 8
    scale: Annotated[float, Range(above=0.0)] = 1.0
    iterations: CountOrNone = 0


class PissaAdapter(LowRankAdapter):
    """The trained distance from the principal components at one site.

    Args:
        site: A linear map or a convolution of one dimension.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is of another kind.
        ConfigError: The rank is above what the site's weight can have.
    """

    start_down: Tensor
    start_up: Tensor

    def __init__(self, site: Site, config: PissaConfig, shared: nn.Module | None) -> None:
        super().__init__()
        check_rank(site, config.rank)
        self.conv = site.conv
        self.scale = config.scale
        self.iterations = config.iterations
        taps = () if site.conv is None else (site.conv.kernel,)
        groups = 1 if site.conv is None else site.conv.groups
        down = torch.zeros(config.rank, site.dim_in // groups, *taps)
        up = torch.zeros(site.dim_out, config.rank, *(1 for _ in taps))
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.register_buffer("start_down", down.clone())
        self.register_buffer("start_up", up.clone())

    @torch.no_grad()
    def prepare(self, module: nn.Module) -> None:
        """Decompose the frozen weight into the start of the two factors.

        Args:
            module: The frozen module at the site; it is only read.
        """
        left, values, right = _principal(
            weight_of(module).flatten(1).float(), self.down.shape[0], self.iterations
        )
        root = (values / self.scale).sqrt()
        self.start_up.copy_((left * root).reshape(self.up.shape))
        self.start_down.copy_((root[:, None] * right).reshape(self.down.shape))

    def leave(self, x: Stream, y: Stream, context: Context) -> Stream:
        """Add the change to the output.

        Args:
            x: Input of the site.
            y: Its output.
            context: Not read.
        """
        return y + product(x, *self._both(), self.conv, self.scale)

    def delta(self, module: nn.Module) -> WeightDelta:
        """Return the change of the weight (see `LowRankAdapter`)."""
        return self.factors(module).delta()

    def factors(self, module: nn.Module) -> Factors:
        """Return the product of rank 2r (see `LowRankAdapter`)."""
        down, up = self._both()
        return Factors(down=down, up=up, scale=self.scale)

    def _both(self) -> tuple[Tensor, Tensor]:
        """Return the factors of rank 2r: what moved from the start, what the start turned to."""
        down = torch.cat([self.start_down + self.down, self.down])
        return down, torch.cat([self.up, self.start_up], dim=1)


def _principal(
    weight: Float[Tensor, "out wide"], rank: int, iterations: int
) -> tuple[Float[Tensor, "out rank"], Float[Tensor, " rank"], Float[Tensor, "rank wide"]]:
    if iterations == 0:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    devices = [weight.device] if weight.is_cuda else []
    with torch.random.fork_rng(devices=devices):  # svd_lowrank takes no generator
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(weight, q=rank, niter=iterations)
    return left, values, right.T


def _prepare(adapter: PissaAdapter, module: nn.Module) -> None:
    adapter.prepare(module)


def _count(site: Site, config: PissaConfig) -> int:
    return num_parameters(site, config.rank, depthwise_rank=config.rank)


METHOD = Method(
    config=PissaConfig,
    adapter=PissaAdapter,
    roles=LINEAR_ROLES,
    source="https://arxiv.org/abs/2404.02948",
    tiny=PissaConfig(rank=2),
    parameters=_count,
    prepare=_prepare,
    weight_delta=weight_delta,
    learning_rate=5e-4,
)
