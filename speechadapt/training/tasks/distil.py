"""Distillation without labels: an adapter makes up for what a frozen encoder's input lacks.

The student hears clips at their native length, or degraded, through an adapter; the teacher is the
same frozen encoder on the padded or clean clip, with the adapter off. Both share one set of
weights, which nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from speechadapt.adapters.attach import attach
from speechadapt.adapters.catalog import method as method_of
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.decoders.whisper_ar.decoder import WhisperDecoder
from speechadapt.models.build import find_model
from speechadapt.training.adapt.parts import is_hub_id
from speechadapt.training.distil.config import Taught, TaughtConfig
from speechadapt.training.distil.inputs import DegradeConfig
from speechadapt.training.distil.loss import layer_paths
from speechadapt.training.distil.models import (
    base_sources,
    load_decoder,
    load_model,
    teacher_of,
)
from speechadapt.training.distil.objective import TaughtObjective


@dataclass(frozen=True)
class Config(TaughtConfig):
    """Everything a distillation is made of, beside what `TaughtConfig` lists.

    Args:
        base: The frozen model: a bundled one, a folder or a hub id; empty means the default.
        padding: How the student's clips are padded where the encoder has a window; the teacher's
            always fill it.
        degrade: What the student's clips suffer and the teacher's do not.
        method: The adapter method.
        roles: Role patterns; empty takes the method's own.
        train_norms: Which norms are trained beside it.
    """

    base: str = ""
    padding: Literal["full", "native"] = "native"
    degrade: DegradeConfig = field(default_factory=DegradeConfig)
    method: str = "native_length"
    roles: tuple[str, ...] = ()
    train_norms: Literal["none", "adapted", "all"] = "none"

    def problems(self) -> list[str]:
        """Say which settings do not fit one another, the method or the models at hand."""
        found = super().problems()
        try:
            method = method_of(self.method)
            found += bind(method.config, self.adapter, "adapter")[1]
            if method.needs:
                found.append(
                    f"method '{self.method}' reads {', '.join(sorted(method.needs))} of every "
                    "row, which recordings alone do not say."
                )
            if not is_hub_id(self.base):
                find_model(self.base or None)
        except (CatalogError, ConfigError) as error:
            found.append(str(error))
        return found

    def sources(self) -> dict[str, Path]:
        """Name the base's weights."""
        return base_sources(self.base)


def build(config: Config) -> DistilObjective:
    """Make the objective of a run."""
    return DistilObjective(config)


class DistilObjective(TaughtObjective):
    """A frozen encoder whose adapter learns to hear as the encoder itself hears better input.

    Args:
        config: The run.

    Raises:
        ConfigError: Student and teacher would hear the same.
    """

    config: Config

    def __init__(self, config: Config) -> None:
        base = load_model(config.base, config.padding, config.language)
        teacher = teacher_of(base.encoder)
        if teacher is base.encoder and not config.degrade.acts:
            raise ConfigError(
                f"student and teacher would hear the same: padding={config.padding} changes "
                f"nothing for {base.encoder.family} and degrade does nothing. Set "
                "degrade.noise_prob, degrade.reverb_prob or degrade.band_limit_prob, or take a "
                "Whisper with padding=native."
            )
        torch.manual_seed(config.trainer.seed)
        handle = attach(
            base.encoder,
            config.method,
            config=config.adapter,
            roles=config.roles or None,
            train_norms=config.train_norms,
        )
        reads_windows = base.decoder
        if isinstance(base.decoder, WhisperDecoder) and config.padding == "native":
            reads_windows = load_decoder(base.folder, "full", config.language)
        models = Taught(
            student=base.encoder,
            teacher=teacher,
            handle=handle,
            decoder=base.decoder,
            teacher_decoder=reads_windows,
            padding=config.padding,
            margin_s=base.margin_s if config.margin_s is None else config.margin_s,
            degrade=config.degrade,
            paths=layer_paths(base.encoder, config.frames),
        )
        super().__init__(config, models)

    def reference_scores(self) -> dict[str, Any]:
        """Return the dev scores of the teacher, and of the student without its adapter."""
        found = super().reference_scores()
        if self.models.decoder is None:
            return found
        sets = self._sets(self.heard)
        sets.score(self.read(None))
        return found | {"without adapter": sets.details()}

    def reference_frames(self) -> dict[str, dict[str, float]]:
        """Return the dev frame error without the adapter."""
        return {"without adapter": self.frame_scores(None)}
