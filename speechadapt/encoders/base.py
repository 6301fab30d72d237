"""What every frozen encoder offers.

An encoder turns waveforms at its own sample rate into frames. It wraps an unmodified transformers
model (`model`), never changes its state-dict keys, and knows nothing about adapters or decoders.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from speechadapt.core.errors import ConfigError, SiteError, near_misses
from speechadapt.core.shapes import Clip, Frames, Lengths
from speechadapt.encoders.sites import Site, select
from speechadapt.encoders.source import Source

PADDINGS = ("full", "native")


def check_padding(padding: str) -> None:
    """Refuse an unknown way to pad clips.

    Args:
        padding: `full` (to the model's window) or `native` (to the longest clip of the batch).

    Raises:
        ConfigError: It is neither.
    """
    if padding not in PADDINGS:
        raise ConfigError(
            f"encoder.padding '{padding}' was asked for.{near_misses(padding, PADDINGS)}"
        )


class Encoder(nn.Module, ABC):
    """A frozen speech encoder with a table of sites.

    Attributes:
        family: The encoder's name in the catalogue (`whisper`, `w2v_bert`, `ast`).
        model: The unmodified transformers module that computes the frames.
        sample_rate: Hz of the waveforms it takes.
        frame_rate: True rate of its frames in Hz.
        dim: Width of its frames.
        window_s: Longest input in seconds, or None where any length goes.
        masks_padding: Whether padding never changes a valid frame; where not, a batch still equals
            its singles.
        sites: Every site by role, in the order of the computation.
        source: What the weights were loaded from; None where the model was built in memory.
    """

    family: str
    model: nn.Module
    sample_rate: int
    frame_rate: float
    dim: int
    window_s: float | None
    masks_padding: bool
    sites: dict[str, Site]
    source: Source | None = None

    @abstractmethod
    def extract(self, waveforms: Sequence[Clip]) -> tuple[torch.Tensor, Lengths]:
        """Compute the model's input features, as the model's own extractor does, for a batch.

        Args:
            waveforms: Mono signals at `sample_rate`, full scale 1.0, of any lengths.

        Returns:
            Padded features (`[batch, ..]` in the layout the model takes) and the valid number of
            feature frames per row.
        """

    @abstractmethod
    def forward(self, features: torch.Tensor, lengths: Lengths) -> tuple[Frames, Lengths]:
        """Encode features.

        Args:
            features: As returned by `extract`.
            lengths: Valid feature frames per row.

        Returns:
            Frames and the valid number of them per row.
        """

    def encode(self, waveforms: Sequence[Clip]) -> tuple[Frames, Lengths]:
        """Extract features and encode them, on the model's device and in its dtype.

        Args:
            waveforms: Mono signals at `sample_rate`, full scale 1.0.

        Returns:
            Frames and the valid number of them per row.
        """
        features, lengths = self.extract(waveforms)
        first = next(self.model.parameters())
        frames, valid = self(features.to(first.device, first.dtype), lengths.to(first.device))
        return frames, valid

    def freeze(self) -> Encoder:
        """Stop gradients to every base weight and switch to evaluation mode; return self."""
        for parameter in self.model.parameters():
            parameter.requires_grad = False
        self.model.eval()
        return self

    def site(self, role: str) -> Site:
        """Return the site of one role.

        Raises:
            SiteError: The encoder has no such role; near misses are named.
        """
        if role not in self.sites:
            raise SiteError(f"{self.family} has no site '{role}'.{near_misses(role, self.sites)}")
        return self.sites[role]

    def select(self, patterns: Sequence[str]) -> list[Site]:
        """Return the sites matching role patterns (see `sites.select`)."""
        return select(self.sites.values(), patterns)
