"""Conditional adapters: some frames go through the frozen sub-layer, all through a bottleneck.

    s = w . x        l = softtopk(s, k)        P: the k largest s of a row, k = share * frames
    y' = scatter(l_P F(x_P)) + scale * up(activation(down(norm(u))))        F: the frozen sub-layer

F runs on k frames alone, in training as at inference, so that both save time. An attention looks
from the chosen frames at the chosen ones (`keys=chosen`), or at all of them (`keys=all`, where the
encoder's attention can). On a Conformer the feed-forwards can be routed, and the attention where
its positions are rotary; its convolution cannot. In `schedule_steps` steps the share falls from all
frames, which is the base exactly, to `share`; `set_share` changes it afterwards.

Source: https://arxiv.org/abs/2304.04947 section 3
Reference: https://github.com/lucidrains/CoLT5-attention (soft top-k and its enlarged k)
Differs: k is a share of a row's valid frames, so that it does not depend on the batch; soft top-k
    is solved exactly unless `iterations` asks for the published iteration. Frames are chosen anew
    for every sub-layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters.blocks import (
    ActivationName,
    Bottleneck,
    InitialName,
    bottleneck_parameters,
    check_frames,
    check_square,
)
from speechadapt.adapters.passage import Keys, Passage, check_part
from speechadapt.adapters.soft_topk import soft_topk
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import ConfigError
from speechadapt.core.limits import Count, CountOrNone, Positive, Range
from speechadapt.encoders.sites import Site

_GRAIN = 10_000  # shares are counted in ten-thousandths
_Number = TypeVar("_Number", int, Tensor)


@dataclass(frozen=True)
class CodaConfig:
    """Settings of conditional adapters.

    Args:
        share: Share of a row's frames that go through the frozen sub-layer.
        schedule_steps: Steps in which the share falls from 1; 0 begins with `share`.
        keys: What chosen frames attend to at an attention: `chosen` frames or `all`.
        temperature: Of the soft choice; towards 0 the chosen frames get the weight 1.
        widening: Factor of k within the soft choice, so that frames just left out have a gradient.
        iterations: Rounds of the published soft choice; 0 solves it exactly.
        bottleneck: Width of the adapter.
        input: What it reads: `normed` (the sub-layer's input, as published), `residual` or
            `own_ln`, as in the method `parallel`.
        scale: What its output is multiplied by.
        activation: The bend between its projections.
        initial: How they start, see `blocks.initialise`.
    """

    share: Annotated[float, Range(most=1.0, above=0.0)] = 0.25
    schedule_steps: CountOrNone = 0
    keys: Keys = "chosen"
    temperature: Positive = 1.0
    widening: Annotated[float, Range(1.0)] = 1.125
    iterations: CountOrNone = 0
    bottleneck: Count = 64
    input: Literal["residual", "normed", "own_ln"] = "normed"
    scale: Annotated[float, Range()] = 1.0
    activation: ActivationName = "relu"
    initial: InitialName = "up_zero"


class CodaAdapter(Adapter):
    """The router and the bottleneck of one sub-layer.

    Args:
        site: A feed-forward, or an attention that some frames alone can go through.
        config: Its settings.
        shared: Nothing.

    Attributes:
        share: Share of the frames once the schedule has run out.
        steps: Optimiser steps done; saved, so that a run goes on where it stopped.

    Raises:
        SiteError: Only all frames together can go through the site.
    """

    def __init__(self, site: Site, config: CodaConfig, shared: nn.Module | None = None) -> None:
        super().__init__()
        check_frames(site, "coda")
        check_part(site, "coda", config.keys)
        check_square(site, "coda", "puts frames that passed by beside those that went through")
        self.taps = config.input != "normed"
        self.config, self.share = config, config.share
        self.router = nn.Parameter(torch.randn(site.dim_in) / math.sqrt(site.dim_in))
        self.bottleneck = Bottleneck(
            site.dim_in,
            config.bottleneck,
            site.dim_out,
            config.activation,
            norm=config.input == "own_ln",
            initial=config.initial,
        )
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def around(self, x: Float[Tensor, "batch frames dim"], context: Context) -> Passage | None:
        """Choose the frames with the largest scores.

        Args:
            x: Input of the sub-layer.
            context: Its mask says which frames are valid.
        """
        share = self.current_share()
        if share == 1.0:
            return None
        mask, config = context.mask, self.config
        parts = max(1, round(share * _GRAIN))
        slots = _share_of(x.shape[1], parts)
        counts = torch.full((len(x),), slots, device=x.device)
        scores = self._scores(x)
        if mask is not None:
            counts = _share_of(mask.sum(1), parts)
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        wanted = config.widening * counts
        ascending, order = scores.sort(1)
        soft = (config.temperature, config.iterations, ascending)
        weights = soft_topk(scores, wanted, mask, *soft)
        frames = order[:, x.shape[1] - slots :]  # the surest last
        place = torch.arange(slots, 0, -1, device=x.device)
        used = None if mask is None else place <= counts[:, None]
        return Passage(frames, used, weights.gather(1, frames), config.keys)

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Add the bottleneck's output, which all frames have.

        Args:
            x: The residual stream, or the sub-layer's input where `input` is `normed`.
            y: The sub-layer's weighted output, zero at frames that passed by.
            context: Not read.
        """
        return torch.add(y, self.bottleneck(x), alpha=self.config.scale)

    def current_share(self) -> float:
        """Return the share of the frames that go through now."""
        most = self.config.schedule_steps
        if not most:
            return self.share
        done = min(1.0, int(self.get_buffer("steps")) / most)
        return 1.0 - done * (1.0 - self.share)

    def _scores(self, x: Tensor) -> Float[Tensor, "batch frames"]:
        with torch.autocast(x.device.type, enabled=False):
            return x.float() @ self.router.float()


def _share_of(frames: _Number, parts: int) -> _Number:
    """Return some ten-thousandths of a number, rounded up: in integers, alike everywhere."""
    return (frames * parts + _GRAIN - 1) // _GRAIN


def set_share(adapters: Sequence[Any], share: float) -> None:
    """Choose another share of the frames, after training, for more speed or more accuracy.

    Args:
        adapters: Of one attachment, as `handle.module.adapters()` returns them.
        share: Above 0, at most 1.

    Raises:
        ConfigError: The share is out of that range.
    """
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"a share must be above 0 and at most 1, got {share:g}.")
    for adapter in adapters:
        adapter.share = share


def after_step(adapters: Sequence[Any], step: int) -> None:
    """Count the step for the schedule of the share."""
    for adapter in adapters:
        adapter.steps.fill_(step)


def parameters(site: Site, config: CodaConfig) -> int:
    """Count the router's vector and the bottleneck."""
    norm = config.input == "own_ln"
    return site.dim_in + bottleneck_parameters(
        site.dim_in, config.bottleneck, site.dim_out, norm=norm
    )


def resolve(config: CodaConfig) -> Method:
    """Return the method of given settings: with a schedule it starts at the base."""
    at_base = bool(config.schedule_steps) and config.initial == "up_zero"
    return replace(METHOD, starts_as_identity=at_base, resolve=None)


METHOD = Method(
    config=CodaConfig,
    adapter=CodaAdapter,
    roles=("ffn",),
    source="https://arxiv.org/abs/2304.04947 section 3",
    tiny=CodaConfig(share=0.5, bottleneck=4),
    parameters=parameters,
    starts_as_identity=False,
    after_step=after_step,
    resolve=resolve,
)
