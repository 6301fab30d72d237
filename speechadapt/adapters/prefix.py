"""Positions that go ahead of the frames through a frozen attention, and are taken away behind it.

An adapter asks for them by `Adapter.around`; what stands at them is zero until adapters at
`attn.k` and `attn.v` put keys and values there. All frames look at them, and they take part in the
attention's own softmax. How the mask and the positions are widened follows from what the encoder
publishes as `Site.prefix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from speechadapt.core.errors import SiteError
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Part, Site


@dataclass(frozen=True)
class Prefix:
    """Positions ahead of the first frame of every row.

    Args:
        count: How many.
    """

    count: int

    def part(self, site: Site) -> Part | None:
        """Return what the site says about them."""
        return site.prefix

    def gather(self, states: Frames) -> Float[Tensor, "batch longer dim"]:
        """Return the frames behind as many zeros.

        Args:
            states: All frames, `[batch, frames, dim]`.
        """
        return functional.pad(states, (0, 0, self.count, 0))

    def put_back(self, states: Float[Tensor, "batch longer dim"], count: int) -> Frames:
        """Return the frames alone.

        Args:
            states: Output of the span.
            count: Number of frames of each row.
        """
        return states[:, states.shape[1] - count :]

    def arguments(
        self, part: Part, states: Frames, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a module's arguments with mask and positions widened by the prefix.

        Args:
            part: What the encoder says about the span.
            states: All frames.
            args: By position; the first holds the states, a second one the mask.
            kwargs: By name.
        """
        wide = dict(kwargs)
        if len(args) > 1:
            args = (args[0], self._mask(args[1]), *args[2:])
        elif part.mask in wide:
            wide[part.mask] = self._mask(wide[part.mask])
        if part.positions and wide.get(part.positions) is not None:
            # [2, frames, 1, 1, width], cosines and sines: the prefix is not turned
            cosine, sine = wide[part.positions]
            still = (0, 0) * (cosine.ndim - 1) + (self.count, 0)
            turned = functional.pad(cosine, still, value=1.0), functional.pad(sine, still)
            wide[part.positions] = torch.stack(turned)
        return args, wide

    def _mask(self, mask: Tensor | None) -> Tensor | None:
        """Return a mask, `[batch, 1, queries or 1, keys]`, in which all look at the prefix."""
        if mask is None:
            return None
        queries = self.count if mask.shape[-2] > 1 else 0
        seen = True if mask.dtype == torch.bool else 0.0
        return functional.pad(mask, (self.count, 0, queries, 0), value=seen)


def check_prefix(site: Site, method: str) -> None:
    """Refuse a span that nothing can go ahead of.

    Args:
        site: Where the prefix is to be.
        method: The method's name, for the message.

    Raises:
        SiteError: It is no attention, or one whose table of relative positions ends with the clip.
    """
    if site.prefix is None:
        raise SiteError(
            f"adapter '{method}' puts learned keys and values ahead of the frames, but "
            f"'{site.role}' ({site.kind}) takes none. Choose attn of an encoder whose positions "
            "are absolute, rotary or relative_key."
        )
