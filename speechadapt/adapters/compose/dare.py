"""Low-rank adapters merged into one LoRA: random entries dropped, the rest scaled up and averaged.

Each entry of a weight change stays with probability `density` and is divided by it, so that its
expectation is what it was. Which entries stay hangs on `seed` and the site alone.

Source: https://arxiv.org/abs/2311.03099 section 3.2 (drop and rescale)
Reference: https://github.com/huggingface/peft/blob/5d602fdbff/src/peft/utils/merge_utils.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from speechadapt.adapters.compose.average import normalised
from speechadapt.adapters.kinds import Kind, Request
from speechadapt.adapters.lowrank_merging import merge_lowrank, weighted
from speechadapt.adapters.routing import Names
from speechadapt.core.limits import CountOrNone, Range
from speechadapt.core.seed import derive_seed


@dataclass(frozen=True)
class DareConfig:
    """Settings of the merger.

    Args:
        density: Probability that an entry stays.
        seed: Of the draw.
        rank: Of the result; 0 takes the sum of the parts' ranks.
    """

    density: Annotated[float, Range(most=1.0, above=0.0)] = 0.5
    seed: CountOrNone = 0
    rank: CountOrNone = 0


def build(request: Request) -> Names:
    """Attach the merged adapter and return its name."""
    config: DareConfig = request.config
    weights = normalised(request.parts, request.weights)

    def together(changes: Tensor, role: str) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed("dare", config.seed, role))
        drawn = torch.rand(changes.shape, generator=generator).to(changes.device)
        kept = torch.where(drawn < config.density, changes / config.density, 0.0)
        return weighted(kept, weights)

    return merge_lowrank(request, together, config.rank)


KIND = Kind(
    config=DareConfig,
    build=build,
    source="https://arxiv.org/abs/2311.03099 section 3.2",
    weighted=True,
)
