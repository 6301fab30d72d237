"""Batches of recordings that come again: their frames are computed once and kept.

A frozen encoder is most of what a step costs. Where the same recordings come again, hidden anew,
each further visit costs the decoder alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechadapt.core.seed import generator
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.training.objective import Batch


class Repeats:
    """Says which recordings a step hears, and keeps their frames in half precision.

    Frames are rounded to half precision on their first visit too, so that a run that goes on from a
    checkpoint, and computes them anew, hears what it would have heard.

    Args:
        count: Batches of recordings in all; every pass has them in another order. 0 hears new
            recordings at every step and keeps nothing.
        seed: Of the orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._order: tuple[int, list[int]] = (-1, [])
        self._texts: dict[int, list[str]] = {}
        self._frames: dict[int, tuple[Tensor, Lengths]] = {}

    def source(self, step: int) -> int:
        """Return the step whose recordings are heard.

        Args:
            step: Micro-step, from 0.
        """
        if not self.count:
            return step
        number, place = divmod(step, self.count)
        if self._order[0] != number:
            order = generator(self.seed, "order of repeats", number).permutation(self.count)
            self._order = (number, [int(one) for one in order])
        return self._order[1][place]

    def known(self, source: int) -> tuple[list[str], Batch] | None:
        """Return texts and frames of recordings heard before; None where they were not.

        Args:
            source: Of `source`.
        """
        if source not in self._frames:
            return None
        frames, lengths = self._frames[source]
        heard = {"frames": frames, "frame_lengths": lengths, "source": torch.tensor(source)}
        return self._texts[source], heard

    def note(self, source: int, texts: Sequence[str]) -> Batch:
        """Keep the texts of recordings and return what marks their batch.

        Args:
            source: Of `source`.
            texts: What is said.
        """
        if not self.count:
            return {}
        self._texts[source] = list(texts)
        return {"source": torch.tensor(source)}

    def keep(self, batch: Batch, frames: Frames, lengths: Lengths) -> Frames:
        """Keep the frames of a marked batch and return them as later visits will have them.

        Args:
            batch: With the mark of `note`, if it has one.
            frames: What the encoder made of it.
            lengths: Valid frames per row.
        """
        if "source" not in batch:
            return frames
        half = frames.half()
        self._frames[int(batch["source"])] = (half.cpu(), lengths.cpu())
        rounded: Frames = half.to(frames.dtype)
        return rounded
