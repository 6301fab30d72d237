"""Adapters at once, weighted by what is heard: no task has to be named.

    y' = y + V sum_k w_k z_k       z_k: what frozen adapter k changes y by

`method` says where w comes from: `mean` (1 / K, nothing is trained), `gated` (a softmax of numbers
or of a linear map of what is heard, by layer, utterance or token) or `attention` (every frame's
query against keys of the z_k; low-rank query and key, V the identity at the start).

Source: https://arxiv.org/abs/2005.00247 section 3 (AdapterFusion); https://arxiv.org/abs/2310.13015
    (Audio-AdapterFusion: three ways to combine single-task adapters without a task ID)
Differs: the formulas of the work on audio could not be read, only its abstract; the three ways here
    are this project's own after AdapterFusion. Scores are divided by the root of the key width,
    query and key are of low rank, the query reads the site's input through a norm without gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from speechadapt.adapters.composed import mix, query_width
from speechadapt.adapters.kinds import Kind, Request
from speechadapt.adapters.mixture import Mixture, Weigher
from speechadapt.adapters.routing import Names
from speechadapt.adapters.weighers import Attention, Fixed, Gate, Span, Value
from speechadapt.core.limits import Count, CountOrNone, NotNegative, Positive
from speechadapt.encoders.sites import Site

SOURCE = "https://arxiv.org/abs/2005.00247 section 3"


@dataclass(frozen=True)
class FuseConfig:
    """Settings of a fusion.

    Args:
        method: `attention`, `gated` or `mean`.
        per: What a gate weighs anew for: every `token`, every `utterance`, or the `layer` once.
        key_width: Width of query and key; 0 takes the site's own, the full rank.
        value: What V is: the identity and a product of `low_rank`, a `full` matrix, or `none`.
        value_rank: Rank of that product.
        value_penalty: Weight of the squared distance of V from the identity in the loss.
        temperature: Above 1 flattens the weights of attention.
    """

    method: Literal["attention", "gated", "mean"] = "attention"
    per: Span = "token"
    key_width: CountOrNone = 64
    value: Value = "low_rank"
    value_rank: Count = 32
    value_penalty: NotNegative = 0.0
    temperature: Positive = 1.0


def weigher(site: Site, config: FuseConfig, parts: int) -> Weigher:
    """Return who weighs at one site.

    Args:
        site: The site.
        config: Settings.
        parts: Number of adapters fused.
    """
    width = query_width(site)
    if config.method == "mean":
        return Fixed((1.0 / parts,) * parts)
    if config.method == "gated":
        return Gate(width, parts, config.per)
    return Attention(
        width, site.dim_out, config.key_width, config.value, config.value_rank, config.temperature
    )


def parameters(site: Site, config: FuseConfig, parts: int) -> int:
    """Count the fusion's own parameters at one site.

    Args:
        site: The site.
        config: Settings.
        parts: Number of adapters fused.
    """
    width = query_width(site)
    if config.method == "mean":
        return 0
    if config.method == "gated":
        return Gate.count(width, parts, config.per)
    return Attention.count(width, site.dim_out, config.key_width, config.value, config.value_rank)


def build(request: Request) -> Names:
    """Attach the fusion and return its name."""
    config: FuseConfig = request.config
    parts = len(request.parts)
    attends = config.method == "attention" and config.value_penalty > 0

    def penalty(mixtures: Sequence[Mixture]) -> Tensor:
        found = [one.weigher.distance() for one in mixtures if isinstance(one.weigher, Attention)]
        total: Tensor = config.value_penalty * sum(found[1:], start=found[0])
        return total

    mix(
        request,
        weigher,
        lambda site, settings: parameters(site, settings, parts),
        SOURCE,
        same_sites=True,
        penalty=penalty if attends else None,
    )
    return (request.name,)


KIND = Kind(config=FuseConfig, build=build, source=SOURCE, learns=True)
