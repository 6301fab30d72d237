"""A bridge from one frozen encoder to the frozen decoder of another model.

The bridge learns what the other model's own encoder hears in the same clip, and what its decoder
makes of that; nothing but the bridge is trained. Features alone need no transcripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from speechadapt.adapters.attach import attach
from speechadapt.adapters.methods.pea_bridge import PeaBridgeConfig
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.core.limits import NotNegative
from speechadapt.decoders.whisper_ar.decoder import WhisperDecoder
from speechadapt.encoders.source import fingerprint_folder
from speechadapt.models.bridged import METHOD, Bridge, BridgedEncoder, ratio
from speechadapt.models.build import find_model
from speechadapt.training.adapt.features import augments_features
from speechadapt.training.adapt.parts import is_hub_id
from speechadapt.training.distil.config import Taught, TaughtConfig
from speechadapt.training.distil.loss import FrameLossConfig
from speechadapt.training.distil.models import base_sources, load_decoder, load_model
from speechadapt.training.distil.objective import TaughtObjective

_SETTLED = ("dim", "repeat")


@dataclass(frozen=True)
class OutputLossConfig(FrameLossConfig):
    """Weights of the terms on frames: two encoders have no layers in common.

    Args:
        layer: Must stay 0.
    """

    layer: NotNegative = 0.0


@dataclass(frozen=True)
class Config(TaughtConfig):
    """Everything the training of a bridge is made of, beside what `TaughtConfig` lists.

    Args:
        frames: Weights of the terms on frames.
        base: The model whose encoder hears: a bundled one, a folder or a hub id; empty means the
            default.
        decoder: The Whisper model whose decoder writes and whose encoder teaches.
    """

    frames: OutputLossConfig = field(default_factory=OutputLossConfig)
    base: str = ""
    decoder: str = "mini-whisper"

    def problems(self) -> list[str]:
        """Say which settings do not fit one another or the models at hand."""
        found = super().problems()
        found += bind(PeaBridgeConfig, self.adapter, "adapter")[1]
        found += [
            f"adapter.{name} follows from the two models; leave it out."
            for name in _SETTLED
            if name in self.adapter
        ]
        if augments_features(self.augment):
            found.append(
                "augment asks for changed features, which two encoders do not share. Set "
                "augment.formant=0 augment.tempo=[1,1] augment.tilt_db=0 augment.time_masks=0 "
                "augment.band_masks=0; augment.speed changes the signal."
            )
        if self.frames.layer:
            found.append("frames.layer compares layers of one encoder; set frames.layer=0.")
        for name in (self.base, self.decoder):
            try:
                if not is_hub_id(name):
                    find_model(name or None)
            except (CatalogError, ConfigError) as error:
                found.append(str(error))
        return found

    def sources(self) -> dict[str, Path]:
        """Name the weights of both models."""
        return base_sources(self.base) | base_sources(self.decoder, "decoder")


def build(config: Config) -> BridgeObjective:
    """Make the objective of a run."""
    return BridgeObjective(config)


class BridgeObjective(TaughtObjective):
    """A frozen encoder and a frozen decoder with a bridge between them that learns.

    Args:
        config: The run.

    Raises:
        ConfigError: The decoder is not Whisper's, or the two rates have no small ratio.
    """

    def __init__(self, config: Config) -> None:
        base = load_model(config.base, "native")
        other = load_model(config.decoder, "full", config.language)
        decoder = load_decoder(other.folder, "native", config.language)
        if not isinstance(decoder, WhisperDecoder):
            raise ConfigError(
                f"decoder '{config.decoder}' was asked for; a bridge leads to a Whisper model, "
                "whose decoder attends to frames."
            )
        repeat, pool = ratio(base.encoder.frame_rate, other.encoder.frame_rate)
        torch.manual_seed(config.trainer.seed)
        settings: Mapping[str, Any] = dict(config.adapter) | {
            "dim": other.encoder.dim,
            "repeat": repeat,
        }
        handle = attach(base.encoder, METHOD, config=settings)
        assert other.encoder.window_s is not None
        margin_s = base.margin_s if config.margin_s is None else config.margin_s
        name = config.decoder if is_hub_id(config.decoder) else other.folder.name
        bridge = Bridge(
            name,
            fingerprint_folder(other.folder),
            other.encoder.dim,
            repeat,
            pool,
            other.encoder.window_s,
            margin_s,
        )
        student = BridgedEncoder(
            base.encoder, other.encoder.dim, repeat, pool, other.encoder.window_s
        )
        models = Taught(
            student=student,
            teacher=other.encoder,
            handle=handle,
            decoder=decoder,
            teacher_decoder=other.decoder,
            padding="native",
            margin_s=margin_s,
        )
        super().__init__(config, models)
        self.bridge = bridge

    def extras(self) -> dict[str, Any]:
        """Return what reads the bridge's frames."""
        return self.bridge.to_json()
