"""Anchor chunks that are remembered; long recordings encoded chunk by chunk with their first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from speechadapt.adapters.attach import active
from speechadapt.adapters.handle import Handle, attachment
from speechadapt.adapters.second_attention import RECORDING, Meeting
from speechadapt.core.errors import ConfigError
from speechadapt.core.shapes import Clip, Frames, Mask
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site


class Anchors(Meeting):
    """A meeting that can remember keys and values of the first chunk of every recording.

    Args:
        sites: All sites of the attachment.
        method: The method's name, for messages.
    """

    def __init__(self, sites: Sequence[Site], method: str) -> None:
        super().__init__(sites, method)
        self._known: dict[tuple[str, Any], tuple[Tensor, Tensor]] | None = None

    @property
    def remembers(self) -> bool:
        """Whether anchors are remembered now."""
        return self._known is not None

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Remember anchors inside a `with` block, and forget them at its end."""
        self._known = {}
        try:
            yield
        finally:
            self._known = None

    def recall(
        self,
        role: str,
        names: Sequence[Any] | None,
        keys: Float[Tensor, "batch heads frames width"],
        values: Float[Tensor, "batch heads frames width"],
        mask: Mask | None,
    ) -> tuple[
        Float[Tensor, "batch heads longest width"],
        Float[Tensor, "batch heads longest width"],
        Bool[Tensor, "batch longest"],
    ]:
        """Return keys and values of each row's anchor, and which of their frames are there.

        Args:
            role: The layer's.
            names: The recording of each row; None makes every row its own anchor.
            keys: Of the rows; those of new recordings are kept.
            values: Likewise.
            mask: Their valid frames; None where all are.
        """
        assert self._known is not None
        found = []
        for row in range(len(keys)):
            count = keys.shape[2] if mask is None else int(mask[row].sum())
            own = tuple(one[row, :, :count].transpose(0, 1).detach() for one in (keys, values))
            name = None if names is None else names[row]
            pair = own if name is None else self._known.setdefault((role, name), (own[0], own[1]))
            found.append(pair)
        lengths = torch.tensor([len(pair[0]) for pair in found], device=keys.device)
        padded = [
            nn.utils.rnn.pad_sequence([pair[part] for pair in found], batch_first=True)
            for part in (0, 1)
        ]
        there = torch.arange(padded[0].shape[1], device=keys.device) < lengths[:, None]
        return padded[0].transpose(1, 2), padded[1].transpose(1, 2), there


def anchors_of(handle: Handle) -> Anchors:
    """Return where an attachment's anchors are remembered.

    Args:
        handle: An attachment of `anchor_attention`.

    Raises:
        ConfigError: It is of another method.
    """
    shared = handle.module.shared
    if not isinstance(shared, Anchors):
        raise ConfigError(
            f"anchors were to be remembered for '{handle.name}', which is a {handle.method_name}. "
            "Choose an attachment of anchor_attention."
        )
    return shared


@torch.no_grad()
def encode_chunks(
    encoder: Encoder, name: str, chunks: Sequence[Clip], rows: int = 8
) -> list[Frames]:
    """Encode the chunks of one long recording, each with an eye on the first.

    The first chunk goes alone, so that its keys and values are there for every batch after it; it
    is computed once.

    Args:
        encoder: The encoder.
        name: Its attachment of `anchor_attention`.
        chunks: In order, each within the encoder's window; the first is the anchor.
        rows: Most chunks in a batch.

    Returns:
        The valid frames of each chunk, `[1, frames, dim]`.

    Raises:
        ConfigError: The attachment is of another method.
    """
    found: list[Frames] = []
    with anchors_of(attachment(encoder, name)).remembering():
        for batch in [chunks[:1], *(chunks[i : i + rows] for i in range(1, len(chunks), rows))]:
            with active(encoder, name, {RECORDING: ["this"] * len(batch)}):
                frames, lengths = encoder.encode(list(batch))
            pairs = zip(frames, lengths.tolist(), strict=True)
            found += [one[None, :count] for one, count in pairs]
    return found
