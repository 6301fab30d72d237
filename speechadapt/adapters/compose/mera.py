"""Several bottleneck adapters merged into one: units aligned, then averaged.

    down' = sum_k w_k T_k down_k      up' = sum_k w_k up_k T_k^T      T_1 = 1

Every unit of a bottleneck may stand anywhere, so units are brought into the first adapter's order
before anything is averaged: by their weights (`wts`) or by what they do with some recordings
(`acts`). `avg` and `sum` leave the order alone. The result is an ordinary adapter of the same
method, to use, to save or to go on training from.

Source: https://arxiv.org/abs/2308.15982 (abstract; its code is not public);
    https://arxiv.org/abs/1910.05653 section 3 for the alignment
Differs: alignment is one to one (`solver=assignment`) by default. Low-rank adapters have more
    freedom than the order of their units; merge those with svd(...), ties(...) or dare(...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.adapters.align import Solver, match
from speechadapt.adapters.attach import active, build, install
from speechadapt.adapters.blocks import Bottleneck
from speechadapt.adapters.compose.average import normalised
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.kinds import Kind, Request
from speechadapt.adapters.routing import Names
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.limits import Positive
from speechadapt.core.shapes import Clip
from speechadapt.encoders.base import Encoder

SOURCE = "https://arxiv.org/abs/2308.15982"
TIE_BREAK = 1e-3  # weights tell units apart that no recording does, such as those never active
Described = Mapping[str, Tensor]  # one description per hidden unit, by role


@dataclass(frozen=True)
class MeraConfig:
    """Settings of the merger.

    Args:
        method: `wts` or `acts` align before averaging, `avg` and `sum` do not align.
        solver: How units are matched.
        temperature: Of the soft matching, in units of the mean distance.
    """

    method: Literal["wts", "acts", "avg", "sum"] = "wts"
    solver: Solver = "assignment"
    temperature: Positive = 0.05


def build_merged(request: Request) -> Names:
    """Attach the merged adapter and return its name."""
    config: MeraConfig = request.config
    handles = request.handles()
    check_alike(request.text, handles)
    weights = normalised(request.parts, request.weights)
    if config.method == "sum":
        weights = tuple(weight * len(handles) for weight in weights)
    plans = _plans(request, handles)
    first = handles[0]
    merged = build(
        request.encoder,
        first.method_name,
        name=request.name,
        config=first.config,
        roles=[site.role for site in first.sites],
        train_norms=first.train_norms,
    )
    merged.roles = first.roles
    tables = [_aligned(one, plan) for one, plan in zip(handles, plans, strict=True)]
    with torch.no_grad():
        for key, tensor in merged.module.tensors().items():
            parts = [weight * table[key] for weight, table in zip(weights, tables, strict=True)]
            tensor.copy_(torch.stack(parts).sum(0))
    merged.module.eval()
    install(merged, activate=False)
    return (request.name,)


def check_alike(text: str, handles: Sequence[Handle]) -> None:
    """Refuse adapters that are not bottlenecks of one method, of one size, at the same sites.

    Args:
        text: The composition, for the message.
        handles: The adapters.

    Raises:
        ConfigError: One is another method, has other settings, or is no bottleneck.
        SiteError: One stands at other sites.
    """
    first = handles[0]
    for handle in handles:
        if handle.method.resolve is not None:
            raise ConfigError(
                f"'{text}' merges bottlenecks with weights of their own, but '{handle.name}' is of "
                f"the method '{handle.method_name}', which computes them. Turn it into its host's "
                "adapter first (hosted.as_host)."
            )
        if not all(_bottleneck(one) for one in handle.module.adapters()):
            raise ConfigError(
                f"'{text}' merges bottlenecks, but '{handle.name}' is of the method "
                f"'{handle.method_name}'. Merge low-rank adapters with svd(...), ties(...) or "
                "dare(...)."
            )
        if (handle.method_name, handle.config) != (first.method_name, first.config):
            raise ConfigError(
                f"'{text}' merges adapters that are alike, but '{handle.name}' is "
                f"{handle.method_name} {handle.config} and '{first.name}' is "
                f"{first.method_name} {first.config}. Use fuse(...) or average(...)."
            )
        if [*handle.sites, *handle.norm_sites] != [*first.sites, *first.norm_sites]:
            raise SiteError(
                f"'{text}' merges adapters at the same sites, but '{handle.name}' stands at others "
                f"than '{first.name}'. Use average(...)."
            )


def unit_weights(handle: Handle) -> dict[str, Float[Tensor, "units size"]]:
    """Describe hidden units by their weights: row of down, its bias, column of up.

    Args:
        handle: A bottleneck adapter.
    """
    found = {}
    for site, adapter in zip(handle.sites, handle.module.adapters(), strict=True):
        inner = _bottleneck(adapter)
        assert inner is not None  # check_alike refuses others
        bias = inner.down.weight.new_zeros(len(inner.down.weight), 1)
        if inner.down.bias is not None:
            bias = inner.down.bias[:, None]
        found[site.role] = torch.cat([inner.down.weight, bias, inner.up.weight.t()], 1).detach()
    return found


@torch.no_grad()
def unit_activations(
    encoder: Encoder, handle: Handle, clips: Sequence[Clip]
) -> dict[str, Float[Tensor, "units positions"]]:
    """Describe hidden units by what they give for recordings, the adapter acting alone.

    Args:
        encoder: The encoder.
        handle: A bottleneck adapter on it.
        clips: Mono signals at the encoder's sample rate; encoded one by one, so that no padding
            counts.
    """
    seen: dict[str, list[Tensor]] = {site.role: [] for site in handle.sites}
    hooks = []
    for site, adapter in zip(handle.sites, handle.module.adapters(), strict=True):
        inner = _bottleneck(adapter)
        assert inner is not None  # check_alike refuses others

        def note(module: Any, args: Any, output: Tensor, role: str = site.role) -> None:
            seen[role].append(output.flatten(0, -2))

        hooks.append(inner.activation.register_forward_hook(note))
    try:
        with active(encoder, handle.name):
            for clip in clips:
                encoder.encode([clip])
    finally:
        for hook in hooks:
            hook.remove()
    return {role: torch.cat(parts).t() for role, parts in seen.items()}


def _plans(request: Request, handles: Sequence[Handle]) -> list[dict[str, Tensor]]:
    config: MeraConfig = request.config
    if config.method in ("avg", "sum"):
        return [{} for _ in handles]
    if config.method == "wts":
        described: list[dict[str, Tensor]] = [unit_weights(one) for one in handles]
    elif request.clips:
        described = [_by_activations(request, one) for one in handles]
    else:
        raise ConfigError(
            f"'{request.text}' aligns by activations, which takes recordings, but none were given. "
            "Give some (adapters fuse --data), or use method=wts."
        )
    anchor = described[0]
    return [
        {}
        if other is anchor
        else {
            role: match(anchor[role], units, config.solver, config.temperature)
            for role, units in other.items()
        }
        for other in described
    ]


def _by_activations(request: Request, handle: Handle) -> dict[str, Tensor]:
    seen, weights = unit_activations(request.encoder, handle, request.clips), unit_weights(handle)
    return {role: torch.cat([seen[role], TIE_BREAK * weights[role]], dim=1) for role in seen}


def _aligned(handle: Handle, plan: Described) -> dict[str, Tensor]:
    """Return an adapter's tensors with its units in the anchor's order."""
    tensors = {key: one.detach() for key, one in handle.module.tensors().items()}
    for role, order in plan.items():
        for key in (f"{role}:bottleneck.down.weight", f"{role}:bottleneck.down.bias"):
            if key in tensors:
                tensors[key] = order @ tensors[key]
        key = f"{role}:bottleneck.up.weight"
        tensors[key] = tensors[key] @ order.t()
    return tensors


def _bottleneck(adapter: Any) -> Bottleneck | None:
    inner = dict(adapter.named_children()).get("bottleneck")
    return inner if isinstance(inner, Bottleneck) else None


KIND = Kind(config=MeraConfig, build=build_merged, source=SOURCE, weighted=True)
