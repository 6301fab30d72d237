"""Low-rank adapters merged into one LoRA: weight changes averaged, then factored again.

    down, up = the rank leading singular directions of sum_k w_k scale_k up_k down_k

With `rank=0` the result has the sum of the parts' ranks and equals `average(...)` to rounding.

Source: https://arxiv.org/abs/2106.09685 section 4.1 (the weight change of low rank)
Reference: https://github.com/adapter-hub/adapters, its `lora_delta_w_svd`
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from speechadapt.adapters.compose.average import normalised
from speechadapt.adapters.kinds import Kind, Request
from speechadapt.adapters.lowrank_merging import merge_lowrank, weighted
from speechadapt.adapters.routing import Names
from speechadapt.core.limits import CountOrNone


@dataclass(frozen=True)
class SvdConfig:
    """Settings of the merger.

    Args:
        rank: Of the result; 0 takes the sum of the parts' ranks.
    """

    rank: CountOrNone = 0


def _together(changes: Tensor, role: str, weights: tuple[float, ...]) -> Tensor:
    return weighted(changes, weights)


def build(request: Request) -> Names:
    """Attach the merged adapter and return its name."""
    weights = normalised(request.parts, request.weights)
    return merge_lowrank(request, partial(_together, weights=weights), request.config.rank)


KIND = Kind(
    config=SvdConfig,
    build=build,
    source="https://arxiv.org/abs/2106.09685 section 4.1",
    weighted=True,
)
