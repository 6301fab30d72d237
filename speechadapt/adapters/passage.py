"""Which frames go through a frozen span while the others pass it by.

    gather      the chosen frames of each row, side by side in slots
    run         the frozen modules of the span, on the slots alone
    put back    each output, weighted, at its frame; zero where a frame passed by

An adapter chooses by `Adapter.around`; how an attention's mask and positions are cut to the chosen
frames follows from what the encoder publishes as `Site.part`. Rows of one batch may choose
different numbers of frames; a row without a choice sends all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Part, Site

Keys: TypeAlias = Literal["chosen", "all"]


@dataclass(frozen=True)
class Passage:
    """The frames that go through a span.

    Args:
        frames: Index of the frame in each slot; no frame stands in two used slots of a row.
        used: True where a slot is used; None where all are.
        weights: What the span's output is multiplied by; None where by nothing.
        keys: What the chosen frames attend to, where the span is an attention: the `chosen` ones or
            `all` frames.
    """

    frames: Int[Tensor, "batch slots"]
    used: Bool[Tensor, "batch slots"] | None = None
    weights: Float[Tensor, "batch slots"] | None = None
    keys: Keys = "chosen"

    def part(self, site: Site) -> Part | None:
        """Return what the site says about them."""
        return site.part

    def gather(self, states: Frames) -> Float[Tensor, "batch slots dim"]:
        """Return the frames that go through.

        Args:
            states: All frames, `[batch, frames, dim]`.
        """
        chosen = states.flatten(0, 1).index_select(0, self._flat(states.shape[1]))
        return chosen.reshape(*self.frames.shape, -1)

    def put_back(self, states: Float[Tensor, "batch slots dim"], count: int) -> Frames:
        """Return all frames: the weighted outputs where a frame went through, zero elsewhere.

        Args:
            states: Output of the span.
            count: Number of frames of each row.
        """
        weights = self.weights
        if self.used is not None:
            weights = self.used.to(states.dtype) if weights is None else weights * self.used
        if weights is not None:
            states = states * weights[:, :, None].to(states.dtype)
        rows, dim = len(states), states.shape[-1]
        empty = states.new_zeros(rows * count, dim)
        filled = empty.index_add(0, self._flat(count), states.flatten(0, 1))
        return filled.reshape(rows, count, dim)

    def arguments(
        self, part: Part, states: Frames, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a module's arguments, mask and positions cut to the frames that go through.

        Args:
            part: What the encoder says about the span.
            states: All frames, which become the keys where `keys` says so.
            args: By position; the first holds the states, a second one the mask.
            kwargs: By name.
        """
        cut = dict(kwargs)
        if not part.mask:
            return args, cut
        if len(args) > 1:
            args = (args[0], self._mask(args[1], states), *args[2:])
        else:
            cut[part.mask] = self._mask(cut.get(part.mask), states)
        if part.positions and cut.get(part.positions) is not None:
            # [2, frames, 1, 1, width], frames first; a row has its own positions from here on
            cut[part.positions] = cut[part.positions][:, self.frames.t()].squeeze(3)
        if self.keys == "all":
            cut[part.keys] = states
        return args, cut

    def _flat(self, count: int) -> Int[Tensor, " slots"]:
        if len(self.frames) == 1:
            return self.frames[0]
        rows = torch.arange(len(self.frames), device=self.frames.device)
        return (self.frames + count * rows[:, None]).flatten()

    def _mask(self, mask: Tensor | None, states: Frames) -> Tensor | None:
        """Return an attention's mask: of the queries that go through, and of their keys."""
        if mask is not None:
            mask = mask.expand(len(states), *mask.shape[1:])
            if mask.shape[-2] > 1:
                mask = _select(mask.transpose(-1, -2), self.frames).transpose(-1, -2)
        if self.keys == "all":
            return mask
        if mask is not None:
            mask = _select(mask, self.frames)
        if self.used is None:
            return mask
        unused = ~self.used[:, None, None]
        if mask is None:
            mask = states.new_zeros(unused.shape)
        if mask.dtype == torch.bool:
            return mask & ~unused
        return mask.masked_fill(unused, torch.finfo(mask.dtype).min)


def _select(mask: Tensor, frames: Tensor) -> Tensor:
    """Return the entries of a mask's last axis that belong to some frames of each row."""
    index = frames[:, None, None].expand(*mask.shape[:-1], -1)
    return mask.gather(-1, index)


def joined(passages: Sequence[tuple[Tensor, Passage]], rows: int, count: int) -> Passage:
    """Return one passage for a batch whose rows choose apart from one another.

    Where some rows choose nothing there are as many slots as frames, so that nothing is saved.

    Args:
        passages: Indices of rows and what those choose; a row is in one of them at most.
        rows: Rows of the batch.
        count: Frames of each row.

    Raises:
        ConfigError: The rows attend to different keys.
    """
    kinds = {passage.keys for _, passage in passages}
    if len(kinds) > 1:
        raise ConfigError(
            "rows of one batch were to attend to the chosen frames in some rows and to all frames "
            "in others. Put them into batches of their own."
        )
    all_choose = sum(len(index) for index, _ in passages) == rows
    slots = max(one.frames.shape[1] for _, one in passages) if all_choose else count
    first = passages[0][1].frames
    frames = torch.arange(slots, device=first.device).repeat(rows, 1)
    used = torch.ones_like(frames, dtype=torch.bool)
    weights = torch.ones(rows, slots, device=first.device)
    for index, passage in passages:
        free = (0, slots - passage.frames.shape[1])
        own = torch.ones_like(passage.frames, dtype=torch.bool)
        own = own if passage.used is None else passage.used
        some = own.to(weights.dtype) if passage.weights is None else passage.weights
        frames = frames.index_copy(0, index, functional.pad(passage.frames, free))
        used = used.index_copy(0, index, functional.pad(own, free, value=False))
        weights = weights.index_copy(0, index, functional.pad(some.to(weights.dtype), free))
    return Passage(frames, used, weights, kinds.pop())


def check_part(site: Site, method: str, keys: Keys = "chosen") -> None:
    """Refuse a span that only all frames together can go through.

    Args:
        site: Where frames are to be chosen.
        method: The method's name, for the message.
        keys: What chosen frames are to attend to.

    Raises:
        SiteError: Its frames meet in a convolution or by relative positions, or its attention has
            no way to attend to frames that did not go through.
    """
    part = site.part
    if part is None:
        raise SiteError(
            f"adapter '{method}' sends some of the frames through a span, but in '{site.role}' "
            f"({site.kind}) frames meet by their places. Choose roles such as ffn."
        )
    if keys == "all" and part.mask and not part.keys:
        raise SiteError(
            f"adapter '{method}' was to attend to all frames (keys=all), but the attention of "
            f"'{site.role}' takes its keys from the frames that ask. Use keys=chosen."
        )
