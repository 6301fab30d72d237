"""A feature cleaner: an adapter that makes a frozen encoder hear clean speech in degraded speech.

Teacher and student are one frozen encoder, cut after a layer. The teacher hears the clean signal
with no adapter, the student the degraded one through the front and the adapter, which alone are
trained, saved and part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from speechadapt.adapters.catalog import method as method_of
from speechadapt.audio.augment import Signal
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.core.files import atomic_write_json
from speechadapt.core.limits import Count
from speechadapt.data.batch import BatchConfig
from speechadapt.models.build import find_model
from speechadapt.restoration.cleaner import ROLES, make_cleaner
from speechadapt.restoration.cleaner_loss import CleanerLossConfig, cleaner_errors
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.frames import framed
from speechadapt.restoration.front import FrontConfig
from speechadapt.training.adapt.parts import is_hub_id
from speechadapt.training.distil.models import base_sources
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch, Group, Objective
from speechadapt.training.restoration.pairs import (
    DamageConfig,
    SourceConfig,
    as_tensors,
    clean_speech,
    damaged,
)
from speechadapt.training.restoration.scores import FeatureScores
from speechadapt.training.speech import DataConfig, mix_problems

REPORT_FILE = "report.json"
_ROWS = 8  # dev recordings heard at a time


@dataclass(frozen=True)
class Config:
    """Everything the training of a cleaner is made of.

    Args:
        data: Clean recordings, noise and rooms; transcripts are not read.
        batch: Batches.
        source: What changes about the clean speech.
        damage: What the student's clip suffers.
        loss: Weights of the terms.
        trainer: Steps.
        base: The frozen encoder: a bundled model, a folder or a hub id; empty means the default.
        layer: The layer whose features are cleaned, counted from 1; those above are not loaded.
        method: The adapter method.
        adapter: Its settings.
        roles: Where the adapters stand.
        train_norms: Which norms are trained beside them.
        front: What stands in front of the encoder.
        dev_items: Most dev recordings scored per corpus.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    loss: CleanerLossConfig = field(default_factory=CleanerLossConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    base: str = ""
    layer: Count = 4
    method: str = "parallel"
    adapter: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ROLES
    train_norms: Literal["none", "adapted", "all"] = "none"
    front: FrontConfig = field(default_factory=FrontConfig)
    dev_items: Count = 30

    def problems(self) -> list[str]:
        """Say which settings do not fit one another, the method or the models at hand."""
        found = mix_problems(self.data, self.batch)
        try:
            found += bind(method_of(self.method).config, self.adapter, "adapter")[1]
            if not is_hub_id(self.base):
                find_model(self.base or None)
        except (CatalogError, ConfigError) as error:
            found.append(str(error))
        return found

    def sources(self) -> dict[str, Path]:
        """Name the base's weights."""
        return base_sources(self.base)


def build(config: Config) -> CleanObjective:
    """Make the objective of a run."""
    return CleanObjective(config)


class CleanObjective(Objective):
    """The errors of cleaned features against those of the clean signal.

    Args:
        config: The run.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        folder = find_model(config.base or None)
        name = config.base if is_hub_id(config.base) else None
        encoder = load_cut(folder, config.layer, name=name)
        torch.manual_seed(config.trainer.seed)
        method = config.method, config.adapter, config.roles, config.train_norms
        self.cleaner = make_cleaner(encoder, *method, config.front)
        self.adapter = self.cleaner.handle.module
        self.front = self.cleaner.front
        parts = config.data, config.batch, config.source
        self.speech = clean_speech(*parts, config.trainer.seed, encoder.sample_rate)
        self.ids = self.speech.ids
        self.degradation = config.damage.degradation()
        self.dev = self._dev()
        self.figures: dict[str, float] = {}

    def _dev(self) -> list[tuple[Signal, Signal]]:
        pairs = []
        for items in self.speech.dev_items(transcribed=False).values():
            chosen = items[:: max(1, len(items) // self.config.dev_items)]
            for signal, item in chosen[: self.config.dev_items]:
                worse = damaged(self.speech, signal, self.degradation, "dev", item.id)
                pairs.append((signal, worse))
        return sorted(pairs, key=lambda pair: len(pair[0]))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CleanObjective:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # frozen, and no child: it moves along and is in no checkpoint
        self.cleaner.encoder._apply(fn, recurse)
        return self

    def batch(self, step: int, rank: int) -> Batch:
        """Build features of degraded and of clean speech; see `Objective.batch`."""
        seed = self.config.trainer.seed
        clean = [row.signal for row in self.speech.rows(step, rank)]
        worse = [
            damaged(self.speech, signal, self.degradation, seed, step, rank, number)
            for number, signal in enumerate(clean)
        ]
        return self._inputs(clean, worse)

    def groups(self) -> Mapping[str, Group]:
        """Return the front's own rate; see `Objective.groups`."""
        return {} if self.front is None else {"front.": Group(rate=self.config.front.rate)}

    def _inputs(self, clean: list[Signal], worse: list[Signal], cleaned: bool = True) -> Batch:
        encoder = self.cleaner.encoder
        hears = self.cleaner if cleaned else encoder
        targets, lengths = encoder.extract([framed(one, encoder) for one in as_tensors(clean)])
        features, _ = hears.extract([framed(one, encoder) for one in as_tensors(worse)])
        return {"features": features, "targets": targets, "lengths": lengths}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the weighted sum of the terms, and each alone."""
        lengths = batch["lengths"]
        clean = self.cleaner.targets(batch["targets"], lengths)
        errors = cleaner_errors(self.cleaner.clean(batch["features"], lengths), clean, lengths)
        loss = errors.weighted(self.config.loss)
        penalty = self.cleaner.handle.penalty()
        if penalty is not None:
            loss = loss + penalty
        return loss, {name: float(term.detach()) for name, term in vars(errors).items()}

    def begin(self) -> None:
        """Let the method look at the loss of the first batches."""
        self.eval()
        self.cleaner.handle.begin(self.batch_loss)

    def after_step(self, step: int, seconds: float) -> None:
        """Let the method act."""
        self.cleaner.handle.after_step(step)

    def summary(self) -> dict[str, str]:
        """Say what the run reads and trains; see `Objective.summary`."""
        handle = self.cleaner.handle
        front = "" if self.front is None else f", front {self.config.front.kind}, {self._size():,}"
        return self.speech.summary() | {
            "trained": f"adapter {handle.method_name}, {handle.num_parameters():,} parameters at "
            f"{len(handle.sites)} sites{front}, features of layer {self.cleaner.layer}"
        }

    def _size(self) -> int:
        return 0 if self.front is None else sum(one.numel() for one in self.front.parameters())

    def evaluate(self) -> dict[str, float]:
        """Score features on the dev recordings, always degraded alike."""
        self.figures = self.scores(cleaned=True)
        return self.figures

    @torch.no_grad()
    def scores(self, cleaned: bool) -> dict[str, float]:
        """Return the loss, the relative error and the ratio of variances on the dev recordings.

        Args:
            cleaned: With front and adapter; else those of the degraded features as they are.
        """
        scores = FeatureScores(self.config.loss)
        for start in range(0, len(self.dev), _ROWS):
            pairs = self.dev[start : start + _ROWS]
            clean_ones, worse = ([pair[side] for pair in pairs] for side in (0, 1))
            made = self._inputs(clean_ones, worse, cleaned)
            batch = {name: part.to(self.device) for name, part in made.items()}
            lengths = batch["lengths"]
            hear = self.cleaner.clean if cleaned else self.cleaner.targets
            clean = self.cleaner.targets(batch["targets"], lengths)
            scores.add(hear(batch["features"], lengths), clean, lengths)
        return scores.figures()

    def save(self, folder: Path) -> None:
        """Write the cleaner as a saved adapter, with its card."""
        trainer = self.config.trainer
        training = {
            "data": self.speech.summary()["train"],
            "damage": self.config.damage.preset,
            "steps": trainer.steps,
            "learning_rate": trainer.learning_rate,
            "seed": trainer.seed,
        }
        self.cleaner.save(folder, training=training, scores=self.figures)

    def finish(self, folder: Path) -> None:
        """Write `report.json`: dev scores with front and adapter and without them."""
        self.eval()
        report = {
            "parameters": self.cleaner.handle.num_parameters(),
            "front_parameters": self._size(),
            "layer": self.cleaner.layer,
            "dev": {
                "degraded": self.scores(cleaned=False),
                "cleaned, last": self.scores(cleaned=True),
            },
        }
        atomic_write_json(folder / REPORT_FILE, report)
