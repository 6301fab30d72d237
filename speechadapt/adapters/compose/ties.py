"""Low-rank adapters merged into one LoRA: small entries trimmed, signs elected, the rest averaged.

Of each weight change the largest `density` of the entries stay; every entry's sign is that of the
weighted sum; those that agree with it are averaged and multiplied by `scale`.

Source: https://arxiv.org/abs/2306.01708 section 4 (trim, elect, disjoint merge)
Reference: https://github.com/huggingface/peft/blob/5d602fdbff/src/peft/utils/merge_utils.py
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from speechadapt.adapters.compose.average import normalised
from speechadapt.adapters.kinds import Kind, Request
from speechadapt.adapters.lowrank_merging import elected, merge_lowrank, trimmed
from speechadapt.adapters.routing import Names
from speechadapt.core.limits import CountOrNone, Positive, Probability


@dataclass(frozen=True)
class TiesConfig:
    """Settings of the merger.

    Args:
        density: Share of the entries kept of each change.
        scale: What the merged change is multiplied by.
        rank: Of the result; 0 takes the sum of the parts' ranks.
    """

    density: Probability = 0.2
    scale: Positive = 1.0
    rank: CountOrNone = 0


def build(request: Request) -> Names:
    """Attach the merged adapter and return its name."""
    config: TiesConfig = request.config
    weights = normalised(request.parts, request.weights)

    def together(changes: Tensor, role: str) -> Tensor:
        return config.scale * elected(trimmed(changes, config.density), weights)

    return merge_lowrank(request, together, config.rank)


KIND = Kind(
    config=TiesConfig,
    build=build,
    source="https://arxiv.org/abs/2306.01708 section 4",
    weighted=True,
)
