"""MoSA: one change of a matrix, split among experts that are drawn at random in training.

    W_i = W_0 + M_i * D        M_1 ... M_N: disjoint masks that together cover the matrix
    training: one i for each matrix and pass; otherwise W_0 + D / N (mean) or W_0 + D (union)

Every entry of D belongs to one expert and moves only in steps in which that one was drawn: neither
weight decay nor momentum moves the others. One projection is shared by all experts (`share`), and
two passes over a batch, with other experts each, are to agree (`consistency`). A file holds the
merged matrices, so that it is as large and as fast as the host's; over a host that merges, such as
`lora`, it merges.

Source: https://arxiv.org/abs/2312.02923 section 3
Reference: https://github.com/Theia-4869/MoSA/blob/286cc0f/vit_mosa.py
Differs: D is kept once instead of N copies of the adapter, which is the same by construction. The
    update is masked, not the gradient alone. `mean` is theirs, the mean over the experts, which is
    what a training pass expects; `union` takes each entry as its owner has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from speechadapt.adapters.hosted import (
    check_shape,
    fill_rest,
    host_of,
    host_problems,
    host_shapes,
    places,
    rest,
    take,
    transform,
)
from speechadapt.adapters.spec import Adapter, Method, WeightDelta
from speechadapt.core.limits import Count, NotNegative
from speechadapt.encoders.sites import Site

SOURCE = "https://arxiv.org/abs/2312.02923"


@dataclass(frozen=True)
class MosaConfig:
    """Settings of a mixture of sparse adapters.

    Args:
        host: The method whose matrices are split.
        settings: Its settings.
        experts: N, how many experts a matrix is split among.
        share: The projection that all experts share: `down`, `up` or `none`.
        merge: What acts when not in training: `mean` or `union`.
        consistency: Weight of the disagreement of two passes over a batch, which doubles the cost
            of a step; 0 makes one pass.
    """

    host: str = "parallel"
    settings: Mapping[str, Any] = field(default_factory=dict)
    experts: Count = 4
    share: Literal["down", "up", "none"] = "down"
    merge: Literal["mean", "union"] = "mean"
    consistency: NotNegative = 1.0

    def problems(self) -> list[str]:
        """Say which settings do not fit the host."""
        return host_problems(self)


class Experts(nn.Module):
    """The experts of one matrix.

    Args:
        start: W_0.
        experts: N.
        share: What D is multiplied by when not in training.

    Attributes:
        owner: The expert that each entry belongs to.
        start: W_0.
        drawn: The experts drawn since the last step.
        before: D as it was before the present step; None where no pass was made yet.
        version: Number of changes that D had seen then.
    """

    owner: Tensor
    start: Tensor

    def __init__(self, start: Tensor, experts: int, share: float) -> None:
        super().__init__()
        self.experts, self.share = experts, share
        order = torch.rand(start.numel(), device=start.device).argsort()
        owner = torch.empty_like(order)
        owner[order] = torch.arange(start.numel(), device=start.device) * experts // start.numel()
        self.register_buffer("owner", owner.reshape(start.shape).to(torch.int16))
        self.register_buffer("start", start.clone())
        self.drawn: set[int] = set()
        self.before: Tensor | None = None
        self.version = 0

    def forward(self, change: Tensor) -> Tensor:
        """Return the matrix of an expert drawn now or, when not in training, of all of them."""
        if not self.training:
            return self.start + self.share * change
        if self.before is None or change._version != self.version:
            # else a pass without a step was made, and D was loaded since
            self.before, self.version = change.detach().clone(), change._version
            self.drawn.clear()
        expert = int(torch.randint(self.experts, (), device="cpu"))
        self.drawn.add(expert)
        return self.start + change * (self.owner == expert)

    def right_inverse(self, matrix: Tensor) -> Tensor:
        """Return the change that makes the matrix what it is, where the share is 1."""
        return matrix - self.start

    @torch.no_grad()
    def keep_others(self, change: Tensor) -> None:
        """Put the entries back that belong to experts not drawn in this step.

        Args:
            change: D, moved by an optimiser.
        """
        if self.before is None:
            return
        moved = torch.zeros_like(self.owner, dtype=torch.bool)
        for expert in self.drawn:
            moved |= self.owner == expert
        change.copy_(torch.where(moved, change, self.before.to(change.device)))
        self.before = None
        self.drawn.clear()


def make(site: Site, config: MosaConfig, shared: nn.Module | None = None) -> Adapter:
    """Return the host's adapter with matrices split among experts.

    Args:
        site: Where.
        config: The mixture's settings.
        shared: Nothing.
    """
    host, settings = host_of(config)
    names = list(host_shapes(host, settings, site))
    # a matrix that stands alone is split, whatever is to be shared
    common = {"down": names[:1], "up": names[-1:], "none": []}[config.share]
    common = common if len(names) > 1 else []
    share = 1.0 if config.merge == "union" else 1.0 / config.experts
    return transform(
        host.adapter(site, settings, None),
        lambda key, matrix: None if key in common else Experts(matrix, config.experts, share),
    )


def parameters(site: Site, config: MosaConfig) -> int:
    """Count the host's parameters."""
    host, settings = host_of(config)
    return host.parameters(site, settings)


def after_step(adapters: Sequence[Adapter], step: int) -> None:
    """Take back what the optimiser did to entries of experts that were not drawn."""
    for one in adapters:
        for place in places(one, Experts):
            place.rule.keep_others(place.trained)


def pack(adapter: Adapter) -> dict[str, Tensor]:
    """Return the merged matrices under the host's names, and what else there is."""
    merged = {
        place.key: place.rule.start + place.rule.share * place.trained.detach()
        for place in places(adapter, Experts)
    }
    return merged | rest(adapter)


def unpack(adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Fill an adapter from what `pack` returned: the merged matrices become its start.

    Args:
        adapter: One of the same settings.
        tensors: From a file.

    Raises:
        CheckpointError: They do not fit.
    """
    used: dict[str, Tensor] = {}
    for place in places(adapter, Experts):
        matrix = used[place.key] = take(tensors, place.key)
        check_shape(matrix, place.key, tuple(place.trained.shape))
        with torch.no_grad():
            place.rule.start.copy_(matrix)
            place.trained.zero_()
        place.rule.before = None
    fill_rest(adapter, tensors, used)


def _merged_delta(
    delta: Callable[[Any, nn.Module], WeightDelta],
) -> Callable[[Any, nn.Module], WeightDelta]:
    """Return a host's change of the frozen weight by the merged matrices, in training too."""

    def of(adapter: Adapter, module: nn.Module) -> WeightDelta:
        mode = adapter.training
        adapter.eval()
        try:
            return delta(adapter, module)
        finally:
            adapter.train(mode)

    return of


def resolve(config: MosaConfig) -> Method:
    """Return the mixture over the host that settings name.

    Args:
        config: The mixture's settings.
    """
    host, _ = host_of(config)
    return replace(
        host,
        config=MosaConfig,
        adapter=make,
        source=SOURCE,
        tiny=TINY,
        parameters=parameters,
        weight_delta=None if host.weight_delta is None else _merged_delta(host.weight_delta),
        resolve=resolve,
        after_step=after_step,
        consistency=config.consistency,
        pack=pack,
        unpack=unpack,
        version=1,
    )


TINY = MosaConfig(settings={"bottleneck": 4}, experts=3)
METHOD = resolve(MosaConfig())
