"""What a vocoder in training hears with: a cut encoder, or a trained cleaner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechadapt.adapters.handle import base_of
from speechadapt.audio.augment import Signal
from speechadapt.core.shapes import Clip, Frames, Lengths
from speechadapt.models.build import find_model
from speechadapt.restoration.cleaner import Cleaner, load_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.training.adapt.parts import is_hub_id

if TYPE_CHECKING:
    from speechadapt.encoders.w2v_bert import W2vBertEncoder


@dataclass(frozen=True)
class Ears:
    """A frozen encoder, with a trained cleaner where there is one.

    Args:
        encoder: Ends after the layer whose features are read.
        cleaner: What cleans them; None reads them as they are.
    """

    encoder: W2vBertEncoder
    cleaner: Cleaner | None

    def waveform(self, signal: Signal, sample_rate: int) -> Tensor:
        """Return a signal at the encoder's rate.

        Args:
            signal: Samples.
            sample_rate: Their rate in Hz.
        """
        if sample_rate == self.encoder.sample_rate:
            return torch.tensor(signal)
        import soxr

        moved = soxr.resample(signal, sample_rate, self.encoder.sample_rate)
        return torch.tensor(np.asarray(moved, dtype=np.float32))

    def extract(self, waveforms: Sequence[Clip]) -> tuple[Frames, Lengths]:
        """Compute the features that `frames` takes.

        Args:
            waveforms: Mono at the encoder's rate, full scale 1.0.
        """
        return (self.cleaner or self.encoder).extract(waveforms)

    @torch.no_grad()
    def frames(self, features: Tensor, lengths: Lengths) -> Frames:
        """Encode features, cleaned where there is a cleaner.

        Args:
            features: As `extract` gives them.
            lengths: Valid frames per row.
        """
        if self.cleaner is not None:
            return self.cleaner.clean(features, lengths)
        frames: Tensor = self.encoder(features, lengths)[0]
        return frames

    def facts(self) -> dict[str, Any]:
        """Return whose features these are, as JSON values."""
        return {
            "base": base_of(self.encoder),
            "layer": int(self.encoder.model.config.num_hidden_layers),
        }


def load_ears(base: str, layer: int, cleaner: str) -> Ears:
    """Load a cut encoder, or a cleaner on the encoder it was trained on.

    Args:
        base: A bundled model, a folder or a hub id; empty means the default.
        layer: The layer to end after; a cleaner knows its own.
        cleaner: Folder of a trained cleaner; empty reads features as they are.

    Raises:
        CatalogError: There is no such model.
        CheckpointError: A folder is damaged, or the cleaner belongs to another encoder.
    """
    folder = find_model(base or None)
    name = base if is_hub_id(base) else None
    if cleaner:
        loaded = load_cleaner(Path(cleaner).expanduser(), folder, name)
        return Ears(loaded.encoder, loaded)
    return Ears(load_cut(folder, layer, name=name), None)
