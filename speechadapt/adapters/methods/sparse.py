"""Sparse adapters: another method's matrices, of which a share is kept from the start.

    W = M * W'        M: ones at the entries with the highest scores, zeros elsewhere, fixed

`density` is the share that is KEPT, of every matrix or (`scope=all`) of all matrices together;
biases and norms stay dense. The scores are drawn at random, the weights' magnitudes, or what the
loss of the first batches says before anything is trained (SNIP, GraSP), or the flow of ones through
an adapter's matrices (SynFlow). `large` widens the host by 1 / density, which leaves as many live
entries as the dense host has (Large-Sparse). A file holds the kept entries and one bit for each.
Over a host that merges, such as `lora`, it merges.

Source: https://arxiv.org/abs/2210.04284 section 3
Reference: https://github.com/Shwai-He/SparseAdapter/blob/b190084/pruning/pruners.py
Differs: theirs calls the kept share sparsity. A projection that its host starts at zero makes every
    SNIP score zero; here it starts from a normal distribution of standard deviation 0.02, or
    (`start=host`) such scores are refused. GraSP's product with the Hessian is a central
    difference, and SynFlow runs through each adapter alone instead of the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from speechadapt.adapters.bits import pack_bits, packed_bytes, unpack_bits
from speechadapt.adapters.blocks import NORMAL_STD
from speechadapt.adapters.hosted import (
    Place,
    check_shape,
    fill_rest,
    host_of,
    host_problems,
    host_shapes,
    places,
    rest,
    take,
    transform,
    wake,
)
from speechadapt.adapters.sparsity import (
    chosen,
    grasp_scores,
    kept_entries,
    snip_scores,
    synflow_scores,
)
from speechadapt.adapters.spec import Adapter, BatchLoss, Method
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.limits import Count, Range
from speechadapt.encoders.sites import Site

SOURCE = "https://arxiv.org/abs/2210.04284"
_WIDTHS = ("bottleneck", "rank")
_MASK, _VALUES = ".mask", ".values"


@dataclass(frozen=True)
class SparseConfig:
    """Settings of a sparse adapter.

    Args:
        host: The method whose matrices are made sparse.
        settings: Its settings.
        density: Share of the matrices' entries that is kept.
        score: What ranks the entries: `random`, `magnitude`, `snip`, `grasp` or `synflow`.
        scope: `matrix` keeps the share of every matrix, `all` of all together; random scores always
            choose within a matrix.
        rounds: Rounds in which the share falls to `density` by equal factors, scored anew in each.
        batches: Training batches that the scores of `snip` and `grasp` are summed over.
        start: `normal` gives matrices that the host starts at zero a normal start, `host` leaves
            them at zero, which keeps the identity and goes with random scores alone.
        large: Widen the host by 1 / density.
    """

    host: str = "parallel"
    settings: Mapping[str, Any] = field(default_factory=dict)
    density: Annotated[float, Range(most=1.0, above=0.0)] = 0.6
    score: Literal["random", "magnitude", "snip", "grasp", "synflow"] = "snip"
    scope: Literal["matrix", "all"] = "all"
    rounds: Count = 1
    batches: Count = 8
    start: Literal["normal", "host"] = "normal"
    large: bool = False

    def problems(self) -> list[str]:
        """Say which settings do not fit the host."""
        found = host_problems(self)
        if not found and self.large and not _width_of(host_of(self)[1]):
            found.append(
                f"adapter.large=true was asked for, but {self.host} has none of the widths "
                f"{', '.join(_WIDTHS)}. Leave it out."
            )
        return found


class Masked(nn.Module):
    """Keeps the entries of a matrix that a mask names.

    Args:
        mask: True where an entry is kept.
        count: How many are.
        final: Whether the mask is the one to train with.
    """

    mask: Tensor
    final: Tensor

    def __init__(self, mask: Tensor, count: int, final: bool) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("mask", mask)
        self.register_buffer("final", torch.tensor(final))

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the matrix with zeros at the other entries."""
        return matrix * self.mask

    @property
    def held(self) -> int:
        """Entries that are not kept; a mask without values (`meta`) keeps as many as at first."""
        kept = self.count if self.mask.is_meta else int(self.mask.sum())
        return self.mask.numel() - kept


def _width_of(settings: Any) -> str | None:
    names = {entry.name for entry in fields(settings)}
    return next((name for name in _WIDTHS if name in names), None)


def sparse_host(config: SparseConfig) -> tuple[Method, Any]:
    """Return the host and its settings, widened where the adapter is to be large.

    A strength alpha that is divided by the rank grows with it, so that the scale stays.

    Args:
        config: The sparse adapter's settings.
    """
    host, settings = host_of(config)
    width = _width_of(settings) if config.large else None
    if width is None:
        return host, settings
    wider = round(getattr(settings, width) / config.density)
    changes: dict[str, Any] = {width: wider}
    if width == "rank" and "alpha" in {entry.name for entry in fields(settings)}:
        changes["alpha"] = settings.alpha * wider / settings.rank
    return host, replace(settings, **changes)


def make(site: Site, config: SparseConfig, shared: nn.Module | None = None) -> Adapter:
    """Return the host's adapter with masks, which are random until scores have been taken.

    Args:
        site: Where.
        config: The sparse adapter's settings.
        shared: Nothing.
    """
    host, settings = sparse_host(config)
    adapter = host.adapter(site, settings, None)
    if config.start == "normal":
        wake(adapter, NORMAL_STD)

    def rule(key: str, matrix: Tensor) -> Masked:
        count = kept_entries(matrix.numel(), config.density)
        (mask,) = chosen([torch.rand_like(matrix)], [count], everywhere=False)
        return Masked(mask, count, final=config.score == "random")

    return transform(adapter, rule)


def parameters(site: Site, config: SparseConfig) -> int:
    """Count the host's parameters, of each matrix of n entries only `density` n, rounded."""
    host, settings = sparse_host(config)
    sizes = [shape.numel() for shape in host_shapes(host, settings, site).values()]
    live = sum(kept_entries(size, config.density) for size in sizes)
    return host.parameters(site, settings) - sum(sizes) + live


def held(adapters: Sequence[Adapter]) -> int:
    """Count the entries that masks hold at zero."""
    return sum(place.rule.held for one in adapters for place in places(one, Masked))


def masks_of(adapters: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """Return the masks of an attachment by site and matrix, as `sparsity.densities` takes them.

    Args:
        adapters: By role, as `AdapterSet.by_role` returns them.
    """
    return {
        f"{role}:{place.key}": place.rule.mask
        for role, adapter in adapters.items()
        for place in places(adapter, Masked)
    }


def _begin(config: SparseConfig, adapters: Sequence[Adapter], loss: BatchLoss) -> None:
    """Take the scores and choose the masks."""
    if config.score == "random":
        return
    own = [place for one in adapters for place in places(one, Masked)]
    for place in own:
        place.rule.mask.fill_(True)
    for number in range(1, config.rounds + 1):
        density = config.density ** (number / config.rounds)
        scores = _scores(config, adapters, loss)
        if number == 1:
            _check_scores(config, own, scores)
        ranked = [
            score.masked_fill(~place.rule.mask, -torch.inf)
            for place, score in zip(own, scores, strict=True)
        ]
        counts = [kept_entries(place.trained.numel(), density) for place in own]
        masks = chosen(ranked, counts, everywhere=config.scope == "all")
        for place, mask in zip(own, masks, strict=True):
            place.rule.mask.copy_(mask)
    for place in own:
        place.rule.final.fill_(True)


def _scores(config: SparseConfig, adapters: Sequence[Adapter], loss: BatchLoss) -> list[Tensor]:
    own = [place for one in adapters for place in places(one, Masked)]
    weights = [place.trained for place in own]

    def gradients() -> list[Tensor]:
        sums = [torch.zeros_like(one) for one in weights]
        for number in range(config.batches):
            with torch.enable_grad():
                found = torch.autograd.grad(loss(number), weights, allow_unused=True)
            for total, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    total += gradient
        return sums

    with torch.no_grad():
        live = [place.trained.detach() for place in own]
        if config.score == "snip":
            return snip_scores(live, gradients)
        if config.score == "grasp":
            return grasp_scores(live, gradients)
        if config.score == "synflow":
            return [one for adapter in adapters for one in _flow(config, adapter)]
        return [one.abs() for one in live]


def _flow(config: SparseConfig, adapter: Adapter) -> list[Tensor]:
    own = [place.trained * place.rule.mask for place in places(adapter, Masked)]
    found = synflow_scores(own)
    if found is None:
        raise ConfigError(
            f"adapter.score=synflow follows ones through an adapter's matrices, but those of "
            f"{config.host} do not follow one another: {[list(one.shape) for one in own]}. Use "
            "adapter.score=snip."
        )
    return found


def _check_scores(
    config: SparseConfig, own: Sequence[Place[Masked]], scores: Sequence[Tensor]
) -> None:
    for place, score in zip(own, scores, strict=True):
        if not bool(score.any()):
            raise ConfigError(
                f"adapter.score={config.score} is to rank the entries of '{place.key}', but all "
                f"its scores are 0: the host {config.host} starts a projection at zero, so that no "
                "entry matters yet. Set adapter.start=normal, a start of the host that is not zero "
                "(adapter.settings.initial=normal), or adapter.score=random."
            )


def _after_step(config: SparseConfig, adapters: Sequence[Adapter], step: int) -> None:
    if step > 1:
        return
    for one in adapters:
        for place in places(one, Masked):
            if not bool(place.rule.final):
                raise ConfigError(
                    f"adapter.score={config.score} was asked for, but a step was made before any "
                    "scores were taken. Call handle.begin with a loss before the first step, or "
                    "set adapter.score=random."
                )


def pack(adapter: Adapter) -> dict[str, Tensor]:
    """Return one bit for each entry of a matrix and the kept entries, and what else there is."""
    found = dict(rest(adapter))
    for place in places(adapter, Masked):
        mask = place.rule.mask.flatten()
        found[place.key + _MASK] = pack_bits(mask.long(), 1)
        found[place.key + _VALUES] = place.trained.detach().flatten()[mask]
    return found


def unpack(adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Fill an adapter from what `pack` returned.

    Args:
        adapter: One of the same settings.
        tensors: From a file.

    Raises:
        CheckpointError: They do not fit.
    """
    used: dict[str, Tensor] = {}
    for place in places(adapter, Masked):
        bits, values = (take(tensors, place.key + one) for one in (_MASK, _VALUES))
        used |= {place.key + _MASK: bits, place.key + _VALUES: values}
        size = place.trained.numel()
        check_shape(bits, place.key + _MASK, (packed_bytes(size, 1),))
        if bits.dtype != torch.uint8 or not values.is_floating_point():
            raise CheckpointError(f"'{place.key}' is stored as {bits.dtype} and {values.dtype}.")
        mask = unpack_bits(bits, 1, size).bool()
        check_shape(values, place.key + _VALUES, (int(mask.sum()),))
        with torch.no_grad():
            device, shape = place.trained.device, place.trained.shape
            whole = values.new_zeros(size)
            whole[mask] = values
            place.trained.copy_(whole.reshape(shape))
            place.rule.mask.copy_(mask.reshape(shape).to(device))
            place.rule.final.fill_(True)
    fill_rest(adapter, tensors, used)


def resolve(config: SparseConfig) -> Method:
    """Return the sparse form of the host that settings name.

    Args:
        config: The sparse adapter's settings.
    """
    host, _ = sparse_host(config)
    return replace(
        host,
        config=SparseConfig,
        adapter=make,
        source=SOURCE,
        tiny=TINY,
        parameters=parameters,
        starts_as_identity=config.start == "host" and host.starts_as_identity,
        resolve=resolve,
        begin=lambda adapters, loss: _begin(config, adapters, loss),
        after_step=lambda adapters, step: _after_step(config, adapters, step),
        held=held,
        pack=pack,
        unpack=unpack,
        version=1,
    )


TINY = SparseConfig(settings={"bottleneck": 4}, density=0.5, score="random")
METHOD = resolve(SparseConfig())
