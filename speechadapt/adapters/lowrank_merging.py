"""Low-rank adapters merged into one: their weight changes put together, then factored again.

Weight changes have no order of units to align: what is averaged is `scale * up down` itself. The
sum of several has the sum of their ranks; what is kept of it is its best approximation of the
wanted rank, by singular values.

Source: https://arxiv.org/abs/2306.01708 (TIES), https://arxiv.org/abs/2311.03099 (DARE); the
    factoring is Eckart and Young's.
Reference: https://github.com/huggingface/peft/blob/5d602fdbff/src/peft/utils/merge_utils.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters.attach import build, install
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.kinds import Request
from speechadapt.adapters.lowrank import KernelDelta, LowRankAdapter
from speechadapt.adapters.methods.lora import LoraAdapter, LoraConfig
from speechadapt.adapters.routing import Names
from speechadapt.core.errors import ConfigError, SiteError

Together = Callable[[Float[Tensor, "parts ..."], str], Tensor]


def merge_lowrank(request: Request, together: Together, rank: int) -> Names:
    """Attach the LoRA that holds the changes of several low-rank adapters put together.

    Args:
        request: The composition.
        together: Makes one change of several, given the role it belongs to.
        rank: Of the result; 0 takes the sum of the parts' ranks, which loses nothing of a sum.

    Returns:
        Its name.

    Raises:
        ConfigError: A part is no low-rank adapter, or trains norms beside it.
        SiteError: The parts stand at unlike sites.
    """
    handles = request.handles()
    _check(request, handles)
    changes, biases = _changes(handles)
    size = rank or sum(_rank(one) for one in handles)
    limit = min(min(one[0].flatten(1).shape) for one in changes.values())
    config = LoraConfig(rank=min(size, limit), alpha=float(min(size, limit)), bias=bool(biases))
    first = handles[0]
    roles = [site.role for site in first.sites]
    merged = build(request.encoder, "lora", name=request.name, config=config, roles=roles)
    merged.roles = first.roles
    with torch.no_grad():
        for role, adapter in zip(roles, merged.module.adapters(), strict=True):
            assert isinstance(adapter, LoraAdapter)
            _fill(adapter, together(torch.stack(changes[role]), role), config.rank)
            if adapter.change.bias is not None:
                found = [one for one in biases.get(role, ()) if one is not None]
                if found:
                    adapter.change.bias.copy_(together(torch.stack(found), role))
    merged.module.eval()
    install(merged, activate=False)
    return (request.name,)


def factored(
    change: Float[Tensor, "out size"], rank: int
) -> tuple[Float[Tensor, "rank size"], Float[Tensor, "out rank"]]:
    """Return down and up of the best approximation of a rank, the singular values shared.

    Args:
        change: A matrix.
        rank: At most the smaller side of it.
    """
    left, values, right = torch.linalg.svd(change.double(), full_matrices=False)
    roots = values[:rank].sqrt()
    down, up = roots[:, None] * right[:rank], left[:, :rank] * roots
    return down.to(change.dtype), up.to(change.dtype)


def trimmed(changes: Float[Tensor, "parts ..."], density: float) -> Float[Tensor, "parts ..."]:
    """Keep the largest entries of each change, by magnitude, and set the others to zero.

    Args:
        changes: One per part.
        density: Share of the entries kept.
    """
    flat = changes.flatten(1)
    kept = max(1, round(density * flat.shape[1]))
    least = flat.abs().topk(kept, dim=1).values[:, -1:]
    return torch.where(flat.abs() >= least, flat, 0.0).reshape(changes.shape)


def elected(changes: Float[Tensor, "parts ..."], weights: Sequence[float]) -> Tensor:
    """Average the entries that agree with the sign of the weighted sum, by entry.

    Args:
        changes: One per part; zeros do not vote.
        weights: One number per part.
    """
    shape = (-1, *(1 for _ in changes.shape[1:]))
    scaled = torch.tensor(weights, dtype=changes.dtype).to(changes.device).reshape(shape)
    agree = torch.sign(changes) == torch.sign((scaled * changes).sum(0))
    voting = (agree & (changes != 0)).to(changes.dtype) * scaled
    return (voting * changes).sum(0) / voting.sum(0).clamp(min=torch.finfo(changes.dtype).tiny)


def weighted(changes: Float[Tensor, "parts ..."], weights: Sequence[float]) -> Tensor:
    """Return the weighted sum.

    Args:
        changes: One per part.
        weights: One number per part.
    """
    scale = torch.tensor(weights, dtype=changes.dtype, device=changes.device)
    total: Tensor = torch.tensordot(scale, changes, dims=1)
    return total


def _changes(
    handles: Sequence[Handle],
) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor | None]]]:
    changes: dict[str, list[Tensor]] = {}
    biases: dict[str, list[Tensor | None]] = {}
    with torch.no_grad():
        for handle in handles:
            for site, adapter in zip(handle.sites, handle.module.adapters(), strict=True):
                assert isinstance(adapter, LowRankAdapter)
                module: nn.Module = handle.encoder.model.get_submodule(site.write)
                delta = adapter.delta(module)
                changes.setdefault(site.role, []).append(delta.weight.float())
                if delta.bias is not None:
                    biases.setdefault(site.role, []).append(delta.bias.float())
    return changes, biases


def _rank(handle: Handle) -> int:
    found = []
    for site, adapter in zip(handle.sites, handle.module.adapters(), strict=True):
        assert isinstance(adapter, LowRankAdapter)
        factors = adapter.factors(handle.encoder.model.get_submodule(site.write))
        found.append(0 if factors is None else factors.rank)
    return max(1, *found)


def _fill(adapter: LoraAdapter, change: Tensor, rank: int) -> None:
    inner = adapter.change
    if isinstance(inner, KernelDelta):
        inner.kernel.copy_(change / adapter.scale)
        return
    down, up = factored(change.flatten(1), rank)
    inner.down.copy_(down.reshape(inner.down.shape))
    inner.up.copy_((up / adapter.scale).reshape(inner.up.shape))


def _check(request: Request, handles: Sequence[Handle]) -> None:
    first = handles[0]
    for handle in handles:
        if not all(isinstance(one, LowRankAdapter) for one in handle.module.adapters()):
            raise ConfigError(
                f"'{request.text}' merges low-rank adapters, but '{handle.name}' is of the method "
                f"'{handle.method_name}'. Merge bottlenecks with mera(...)."
            )
        if handle.norm_sites:
            raise ConfigError(
                f"'{request.text}' merges low-rank adapters alone, but '{handle.name}' has trained "
                f"norms beside it (train_norms={handle.train_norms}). Use average(...)."
            )
        if [site.role for site in handle.sites] != [site.role for site in first.sites]:
            raise SiteError(
                f"'{request.text}' merges adapters at the same sites, but '{handle.name}' stands "
                f"at others than '{first.name}'. Use average(...)."
            )
