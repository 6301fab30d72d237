"""Low-bit adapters: another method's matrices in 1, 2, 4 or 8 bits an entry.

    z = (W' - mu) / (sigma + 1e-5)      mu, sigma: mean and standard deviation of W'
    W = sigma Q(z) + mu                 Q: the nearest of 2^b levels, gradient 1

The levels of N(0, 1) are the medians of their cells and the cells end half way between levels,
which makes the mean absolute error least: +-0.6745 for one bit. Statistics are taken anew in every
step and carry gradients; what is trained is in full precision. A file holds the levels' numbers,
packed, and two floats for each matrix. Over a host that merges, such as `lora`, it merges.

Source: https://arxiv.org/abs/2307.16867 section 3
Reference: https://github.com/JieShibo/PETL-ViT/blob/026e4f1/binary_adapter/utils.py
Differs: matrices of any size are packed to the last entry (theirs drops a tail), and an entry on
    the edge of two cells belongs to the lower one (sign(0) is a third level of theirs). The host's
    biases are left out, as published, unless `biases` keeps them in full precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from speechadapt.adapters.bits import pack_bits, packed_bytes, unpack_bits
from speechadapt.adapters.hosted import (
    check_shape,
    fill_rest,
    host_of,
    host_problems,
    matrices,
    places,
    rest,
    take,
    transform,
    wake,
)
from speechadapt.adapters.spec import Adapter, Method
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.sites import Site

SOURCE = "https://arxiv.org/abs/2307.16867"
EPSILON = 1e-5
START_STD = 1e-3
_ROUNDS = 500
_CODES, _STATISTICS = "packed.codes", "packed.statistics"


@dataclass(frozen=True)
class LowBitConfig:
    """Settings of a low-bit adapter.

    Args:
        host: The method whose matrices are stored in few bits.
        settings: Its settings.
        bits: Of an entry: 1, 2, 4 or 8.
        biases: Keep the biases of the host's projections, in full precision.
    """

    host: str = "parallel"
    settings: Mapping[str, Any] = field(default_factory=dict)
    bits: Literal[1, 2, 4, 8] = 1
    biases: bool = False

    def problems(self) -> list[str]:
        """Say which settings do not fit the host."""
        return host_problems(self)


@lru_cache
def _points(bits: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    count = 2**bits
    # the density of good levels is that of a normal distribution twice as wide in variance
    middles = (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count
    levels = math.sqrt(2) * torch.special.ndtri(middles)
    below, above = torch.tensor([[0.0], [1.0]], dtype=torch.float64, device="cpu")
    for _ in range(_ROUNDS):
        shares = torch.special.ndtr((levels[1:] + levels[:-1]) / 2)
        ends = torch.cat([below, shares, above])
        levels = torch.special.ndtri((ends[1:] + ends[:-1]) / 2)
    levels = (levels - levels.flip(0)) / 2  # exactly even, so that the middle edge is 0
    edges = (levels[1:] + levels[:-1]) / 2
    return tuple(levels.tolist()), tuple(edges.tolist())


def codebook(bits: int) -> tuple[Float[Tensor, " levels"], Float[Tensor, " edges"]]:
    """Return the levels for N(0, 1), from the lowest, and the edges between their cells.

    Args:
        bits: Base 2 logarithm of the number of levels.
    """
    levels, edges = _points(bits)
    return torch.tensor(levels), torch.tensor(edges)


class Quantised(nn.Module):
    """Gives every entry of a matrix the nearest of some levels.

    Args:
        bits: Base 2 logarithm of the number of levels.

    Attributes:
        fixed: Mean and standard deviation of a matrix that came from a file; None where they are
            the matrix's own.
    """

    levels: Tensor
    edges: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        levels, edges = codebook(bits)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("edges", edges, persistent=False)
        self.fixed: tuple[float, float] | None = None

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the matrix in levels; gradients pass as if it were not, and to its statistics."""
        exact = matrix.float()
        mean, spread = self.statistics(exact)
        z = self._standard(exact, mean, spread)
        steps = self.levels.float()[self._cells(z)] + (z - z.detach())
        rounded: Tensor = spread * steps + mean
        return rounded.to(matrix.dtype)

    def statistics(self, matrix: Tensor) -> tuple[Any, Any]:
        """Return mean and standard deviation."""
        return (matrix.mean(), matrix.std()) if self.fixed is None else self.fixed

    def codes(self, matrix: Tensor) -> Integer[Tensor, " entries"]:
        """Return the number of each entry's level."""
        exact = matrix.detach().float()
        return self._cells(self._standard(exact, *self.statistics(exact))).flatten()

    def whole(
        self, codes: Integer[Tensor, " entries"], mean: float, spread: float
    ) -> Float[Tensor, " entries"]:
        """Return the entries that codes stand for, on the CPU."""
        return spread * self.levels.float().cpu()[codes] + mean

    def _standard(self, matrix: Tensor, mean: Any, spread: Any) -> Tensor:
        if self.fixed is None:
            standard: Tensor = (matrix - mean) / (spread + EPSILON)
            return standard
        # the entries are levels already, and are to stay the same ones
        return (matrix - mean) / spread if spread else torch.zeros_like(matrix)

    def _cells(self, z: Tensor) -> Tensor:
        return torch.bucketize(z.detach(), self.edges.float())


def make(site: Site, config: LowBitConfig, shared: nn.Module | None = None) -> Adapter:
    """Return the host's adapter with matrices in few bits; one that is zero gets a small start.

    Args:
        site: Where.
        config: The low-bit adapter's settings.
        shared: Nothing.
    """
    host, settings = host_of(config)
    adapter = host.adapter(site, settings, None)
    wake(adapter, START_STD)
    if not config.biases:
        for module in list(_biased(adapter)):
            bias = module._parameters.pop("bias")
            assert bias is not None
            module.register_buffer("bias", torch.zeros_like(bias), persistent=False)
    return transform(adapter, lambda key, matrix: Quantised(config.bits))


def _biased(adapter: Adapter) -> Iterator[nn.Module]:
    """Yield the projections of a host's adapter that have a bias."""
    for module, name in matrices(adapter).values():
        if name == "weight" and module._parameters.get("bias") is not None:
            yield module


def parameters(site: Site, config: LowBitConfig) -> int:
    """Count the host's parameters, less the biases that are left out."""
    host, settings = host_of(config)
    count = host.parameters(site, settings)
    if config.biases:
        return count
    with torch.device("meta"):
        adapter = host.adapter(site, settings, None)
    return count - sum(module.get_parameter("bias").numel() for module in _biased(adapter))


def after_step(adapters: Any, step: int) -> None:
    """Take statistics from the matrices from now on, which are no levels any more."""
    for one in adapters:
        for place in places(one, Quantised):
            place.rule.fixed = None


def pack(adapter: Adapter) -> dict[str, Tensor]:
    """Return the levels' numbers of all matrices in bytes, their statistics, and what else is."""
    codes, statistics = [], []
    for place in places(adapter, Quantised):
        matrix = place.trained.detach()
        codes.append(pack_bits(place.rule.codes(matrix), place.rule.bits))
        statistics.append([float(one) for one in place.rule.statistics(matrix.float())])
    packed = {_CODES: torch.cat(codes), _STATISTICS: torch.tensor(statistics)}
    return packed | rest(adapter)


def unpack(adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Fill an adapter from what `pack` returned.

    Args:
        adapter: One of the same settings.
        tensors: From a file.

    Raises:
        CheckpointError: They do not fit.
    """
    own = list(places(adapter, Quantised))
    codes, statistics = take(tensors, _CODES), take(tensors, _STATISTICS)
    sizes = [packed_bytes(place.trained.numel(), place.rule.bits) for place in own]
    check_shape(codes, _CODES, (sum(sizes),))
    check_shape(statistics, _STATISTICS, (len(own), 2))
    if codes.dtype != torch.uint8 or not statistics.is_floating_point():
        raise CheckpointError(f"it is stored as {codes.dtype} and {statistics.dtype}.")
    for place, part, (mean, spread) in zip(
        own, codes.split_with_sizes(sizes), statistics.tolist(), strict=True
    ):
        numbers = unpack_bits(part, place.rule.bits, place.trained.numel())
        with torch.no_grad():
            whole = place.rule.whole(numbers, mean, spread)
            place.trained.copy_(whole.reshape(place.trained.shape))
        place.rule.fixed = (mean, spread)
    fill_rest(adapter, tensors, {_CODES: codes, _STATISTICS: statistics})


def resolve(config: LowBitConfig) -> Method:
    """Return the low-bit form of the host that settings name.

    Args:
        config: The low-bit adapter's settings.
    """
    host, _ = host_of(config)
    return replace(
        host,
        config=LowBitConfig,
        adapter=make,
        source=SOURCE,
        tiny=TINY,
        parameters=parameters,
        starts_as_identity=False,
        resolve=resolve,
        after_step=after_step,
        pack=pack,
        unpack=unpack,
        version=1,
    )


TINY = LowBitConfig(settings={"bottleneck": 5}, bits=2)
METHOD = resolve(LowBitConfig())
