"""Several adapters at one site at once: what each adds, weighted and summed.

    y' = y + finish(sum_k w_k z_k)        z_k: what adapter k changes y by

Who weighs is a `Weigher`: with fixed numbers, by row, by a gate, by attention. Adapters that name
their branch (`Adapter.branch`) and are of one kind run as one product; others run one by one. The
adapters are those of their own attachments, which a mixture reads and never owns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters.bank import Bank
from speechadapt.adapters.branch import Branch
from speechadapt.adapters.spec import Adapter, Context
from speechadapt.core.errors import ConfigError, ShapeError
from speechadapt.core.shapes import Frames, Mask
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class SitePart:
    """What one part of a mixture has at one site.

    Args:
        label: The part's name, for messages.
        adapters: Its adapters in the order in which they act; empty where it has none here.
    """

    label: str
    adapters: tuple[Adapter, ...]


class Changes:
    """What the parts of a mixture add at one site in one call, as far as it has been computed.

    Args:
        count: Number of parts.
        banks: Products with their inner states and the numbers of their parts.
        loose: Number of a part and what it adds, frames first.
        like: Frames of the size of what is added.
    """

    def __init__(
        self,
        count: int,
        banks: Sequence[tuple[Bank, Tensor, Tensor]],
        loose: Sequence[tuple[int, Frames]],
        like: Frames,
    ) -> None:
        self.count = count
        self._banks = banks
        self._loose = loose
        self._like = like

    def weighted(
        self, weights: Float[Tensor, "*#rows parts"]
    ) -> Float[Tensor, "batch frames dim_out"]:
        """Return the weighted sum of what the parts add.

        Args:
            weights: One number per part: `[parts]`, `[batch, 1, parts]` or
                `[batch, frames, parts]`.
        """
        total: Tensor | None = None
        for bank, inner, numbers in self._banks:
            some = weights if len(numbers) == self.count else weights.index_select(-1, numbers)
            added = bank.weighted(inner, some)
            total = added if total is None else total + added
        for number, change in self._loose:
            added = weights[..., number : number + 1] * change
            total = added if total is None else total + added
        return torch.zeros_like(self._like) if total is None else total

    def scores(
        self, query: Float[Tensor, "batch frames size"], key: Float[Tensor, "size dim_out"]
    ) -> Float[Tensor, "batch frames parts"]:
        """Return `query . (key z_k)` of every part, 0 for one that adds nothing here.

        Args:
            query: One vector for each frame.
            key: The map from what is added to the query's space.
        """
        found: list[Tensor] = [query.new_zeros(query.shape[:2])] * self.count
        for bank, inner, numbers in self._banks:
            columns = bank.scores(inner, query, key).unbind(-1)
            for number, column in zip(numbers.tolist(), columns, strict=True):
                found[number] = column
        for number, change in self._loose:
            found[number] = (nn.functional.linear(change, key) * query).sum(-1)
        return torch.stack(found, dim=-1)


class Weigher(nn.Module, ABC):
    """Says how much each part of a mixture counts."""

    @abstractmethod
    def forward(
        self, query: Frames, changes: Changes, context: Context
    ) -> Float[Tensor, "*rows parts"]:
        """Return the weights: `[parts]`, `[batch, 1, parts]` or `[batch, frames, parts]`.

        Args:
            query: What is heard at the site, `[batch, frames, width]`.
            changes: What the parts add.
            context: What else is known.
        """

    def finish(self, added: Frames) -> Frames:
        """Return what is added in the end; the default leaves the weighted sum alone."""
        return added


class Meter:
    """Notes the weights of every row, site by site, each averaged over the row's valid frames.

    Args:
        learns: Whether gradients flow through what is noted.

    Attributes:
        sites: `[batch, parts]` of the last call by role.
    """

    def __init__(self, learns: bool = False) -> None:
        self.learns = learns
        self.sites: dict[str, Tensor] = {}

    def note(self, role: str, weights: Tensor, rows: int, mask: Mask | None) -> None:
        """Keep the weights of one site.

        Args:
            role: The site.
            weights: As a `Weigher` returns them.
            rows: Rows of the batch.
            mask: True at valid frames.
        """
        weights = weights.float() if self.learns else weights.detach().float()
        if weights.ndim == 1:
            weights = weights.expand(rows, -1)
        elif weights.shape[1] == 1:
            weights = weights[:, 0]
        elif mask is None or mask.shape[1] != weights.shape[1]:
            weights = weights.mean(1)
        else:
            valid = mask[:, :, None].to(weights.dtype)
            weights = (weights * valid).sum(1) / valid.sum(1)
        self.sites[role] = weights.expand(rows, -1)

    def rows(self) -> Float[Tensor, "batch parts"]:
        """Return the weights averaged over the sites."""
        return torch.stack(list(self.sites.values())).mean(0)


class Mixture(Adapter):
    """Parts and who weighs them, at one site.

    Args:
        site: Where.
        parts: What each part has there.
        weigher: Weighs them; its tensors are the mixture's only ones.

    Raises:
        ConfigError: A part changes what goes into the site, or one part reads the residual stream
            and another the site's own input.
    """

    def __init__(self, site: Site, parts: Sequence[SitePart], weigher: Weigher) -> None:
        super().__init__()
        self.weigher = weigher
        self.site = site
        self.meter: Meter | None = None
        self.taps = _taps(site, parts)
        # plain attributes: the parts' tensors belong to their own attachments
        self.__dict__["parts"] = tuple(parts)
        self.__dict__["tensors"] = [
            tensor for part in parts for one in part.adapters for tensor in one.parameters()
        ]
        self._banks: list[tuple[Bank, Tensor]] = []
        self._key: object = None

    @property
    def labels(self) -> tuple[str, ...]:
        """How its parts are called, in order."""
        return tuple(part.label for part in self._parts())

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Add the weighted changes of the parts.

        Args:
            x: Input of the site, or the residual stream where the parts read that.
            y: Output of the site.
            context: Handed on to the parts and the weigher.
        """
        frames = _frames(self.site, y)
        query = frames if self.site.conv is not None else x
        changes = self._changes(x, y, frames, context)
        weights = self.weigher(query, changes, context)
        if self.meter is not None:
            self.meter.note(self.site.role, weights, len(y), context.mask)
        added = self.weigher.finish(changes.weighted(weights))
        return y + _as_site(self.site, added, y)

    def _changes(self, x: Tensor, y: Tensor, frames: Frames, context: Context) -> Changes:
        banks = [(bank, bank.inner(x, y), numbers) for bank, numbers in self._products(y)]
        covered = {number for _, numbers in self._banks for number in numbers.tolist()}
        loose = []
        for number, part in enumerate(self._parts()):
            if number in covered or not part.adapters:
                continue
            after = y
            for adapter in part.adapters:
                after = adapter.leave(x, after, context)
            if after.shape != y.shape:
                raise ShapeError(
                    f"'{part.label}' was to be mixed with others at '{self.site.role}', but makes "
                    f"{list(after.shape)} of {list(y.shape)}. Use it alone."
                )
            loose.append((number, _frames(self.site, after - y)))
        return Changes(len(self._parts()), banks, loose, frames)

    def _parts(self) -> tuple[SitePart, ...]:
        parts: tuple[SitePart, ...] = self.__dict__["parts"]
        return parts

    def _products(self, y: Tensor) -> list[tuple[Bank, Tensor]]:
        """Return the parts that run as products; made anew only after a part's tensor changed."""
        tensors: list[Tensor] = self.__dict__["tensors"]
        if torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
            self._key = None
            self._banks = self._grouped(y)
            return self._banks
        # tensors made in inference mode cannot take part in training later on
        key = (
            torch.is_inference_mode_enabled(),
            [(one.data_ptr(), -1 if one.is_inference() else one._version) for one in tensors],
            [one.training for part in self._parts() for one in part.adapters],
        )
        if key != self._key:
            with torch.no_grad():
                self._banks = self._grouped(y)
            self._key = key
        return self._banks

    def _grouped(self, y: Tensor) -> list[tuple[Bank, Tensor]]:
        kinds: dict[tuple[object, ...], list[tuple[int, Branch]]] = {}
        for number, part in enumerate(self._parts()):
            branch = part.adapters[0].branch() if len(part.adapters) == 1 else None
            if branch is not None:
                kinds.setdefault(branch.kind, []).append((number, branch))
        return [
            (
                Bank([branch for _, branch in members]),
                torch.tensor([number for number, _ in members], device=y.device),
            )
            for members in kinds.values()
        ]


def _taps(site: Site, parts: Sequence[SitePart]) -> bool:
    """Return whether the parts read the residual stream; those that read `y` alone do not care."""
    found: dict[bool, str] = {}
    for part in parts:
        for adapter in part.adapters:
            own = type(adapter)
            if own.enter is not Adapter.enter or own.around is not Adapter.around:
                raise ConfigError(
                    f"'{part.label}' was to be mixed with others, but at '{site.role}' it changes "
                    "what goes in, which cannot be weighted. Use it alone or in a stack."
                )
            branch = adapter.branch()
            if branch is None or branch.reads != "output":
                found.setdefault(adapter.taps, part.label)
    if len(found) > 1:
        raise ConfigError(
            f"'{found[True]}' and '{found[False]}' were to be mixed, but at '{site.role}' one "
            "reads the residual stream and the other the site's own input. Mix adapters that read "
            "the same."
        )
    return next(iter(found), False)


def _frames(site: Site, states: Tensor) -> Frames:
    """Return states frames first, whatever the site."""
    return states if site.conv is None else states.flatten(2).transpose(1, 2)


def _as_site(site: Site, frames: Frames, like: Tensor) -> Tensor:
    return frames if site.conv is None else frames.transpose(1, 2).reshape(like.shape)
