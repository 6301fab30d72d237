"""What every frozen encoder offers.

An encoder turns waveforms at its own sample rate into frames. It wraps an unmodified transformers
model (`model`), never changes its state-dict keys, and knows nothing about adapters or decoders.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import nn

from speechadapt.core.errors import ConfigError, SiteError, near_misses
from speechadapt.core.shapes import Clip, Frames, Lengths, Mask
from speechadapt.encoders.sites import Site, select
from speechadapt.encoders.source import Source, fingerprint_weights

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
        followers: Modules that take part in every change of device, dtype and mode without being
            part of the encoder's state: what is attached to it.
        attached: What directs the attached; None where nothing ever was.
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

    def __init__(self) -> None:
        super().__init__()
        self.followers: list[nn.Module] = []
        self.attached: object | None = None
        self._fingerprint: tuple[object, str] = (None, "")

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

    @abstractmethod
    def residual_mask(self, features: torch.Tensor, lengths: Lengths) -> Mask | None:
        """Return the valid positions of the residual stream between the layers.

        Args:
            features: As returned by `extract`.
            lengths: Valid feature frames per row.

        Returns:
            True where a position is valid; None where all are, or where the model takes padding for
            input.
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

    def fingerprint(self) -> str:
        """Return the fingerprint of the base weights as they are (see `fingerprint_weights`).

        It is computed once and again only after a weight was moved or written.
        """
        state = self.model.state_dict().values()
        key = tuple((one.data_ptr(), -1 if one.is_inference() else one._version) for one in state)
        if self._fingerprint[0] != key:
            self._fingerprint = (key, fingerprint_weights(self.model))
        return self._fingerprint[1]

    def freeze(self) -> Encoder:
        """Stop gradients to every base weight and switch to evaluation mode; return self."""
        for parameter in self.model.parameters():
            parameter.requires_grad = False
        self.model.eval()
        return self

    def train(self, mode: bool = True) -> Encoder:
        """Switch the encoder and what follows it to training or evaluation mode; return self."""
        super().train(mode)
        for follower in self.followers:
            follower.train(mode)
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Encoder:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for follower in self.followers:
            follower._apply(fn, recurse)  # type: ignore[no-untyped-call]
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
