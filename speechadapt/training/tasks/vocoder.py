"""A vocoder: waveforms from the features of a frozen encoder, clean or cleaned ones.

Two stages are two recipes: from clean features (`cleaner` empty), then, starting from that vocoder
(`start`), from what a trained cleaner makes of degraded speech.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from speechadapt.audio.augment import Signal
from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.core.limits import Count, CountOrNone, NotNegative, Positive
from speechadapt.core.seed import derive_seed, generator
from speechadapt.data.batch import BatchConfig
from speechadapt.metrics.quality import log_spectral_distance
from speechadapt.models.build import find_model
from speechadapt.restoration.discriminators import DiscriminatorConfig, Discriminators
from speechadapt.restoration.frames import frame_hop, framed
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.vocoder import Speech, Vocoder, gain_adjusted
from speechadapt.restoration.vocoder_folder import load_vocoder, make_vocoder, save_vocoder
from speechadapt.restoration.vocoder_loss import VocoderLossConfig
from speechadapt.restoration.wavefit import WaveFitConfig, WaveFitVocoder
from speechadapt.training.adapt.parts import is_hub_id
from speechadapt.training.distil.models import base_sources
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch, Group, Objective
from speechadapt.training.restoration.adversary import duel
from speechadapt.training.restoration.crops import choose_start, cut_frames, cut_signal
from speechadapt.training.restoration.ears import Ears, load_ears
from speechadapt.training.restoration.pairs import (
    DamageConfig,
    SourceConfig,
    clean_speech,
    damaged,
)
from speechadapt.training.speech import DataConfig, mix_problems

_FOLDERS = ("cleaner", "start", "istft_start")


@dataclass(frozen=True)
class Config:
    """Everything the training of a vocoder is made of.

    Args:
        data: Clean recordings, and noise and rooms where there is a cleaner.
        batch: Batches; only pieces of each row reach the vocoder.
        source: What changes about the clean speech.
        damage: What the cleaner's clip suffers.
        loss: Weights of the terms.
        discriminators: Their number and size.
        trainer: Steps; `trainer.betas` are of both sides.
        base: The frozen encoder: a bundled model, a folder or a hub id; empty means the default.
        layer: The layer whose features it reads; a cleaner says its own.
        cleaner: Folder of a trained cleaner; empty trains on clean features.
        start: Folder of a vocoder to start from; empty starts at random.
        istft_start: Folder of the inverse-STFT vocoder that `wavefit.initial=istft` starts its
            iterations from; not asked for where `start` holds it already.
        kind: `wavefit` or `istft`.
        wavefit: Shape of a WaveFit.
        istft: Shape of an inverse-STFT vocoder.
        sample_rate: Of the waveforms, in Hz.
        crop_s: Length of a piece.
        crops: Pieces of each recording; the encoder hears it once for all of them.
        discriminator_rate: Learning rate of the discriminators, as a factor of the trainer's.
        adversarial_from: First step with discriminators; spectra alone count before it.
        dev_items: Most dev recordings scored.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    loss: VocoderLossConfig = field(default_factory=VocoderLossConfig)
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    base: str = ""
    layer: Count = 4
    cleaner: str = ""
    start: str = ""
    istft_start: str = ""
    kind: Literal["wavefit", "istft"] = "wavefit"
    wavefit: WaveFitConfig = field(default_factory=WaveFitConfig)
    istft: IstftConfig = field(default_factory=IstftConfig)
    sample_rate: Count = 16000
    crop_s: Positive = 0.6
    crops: Count = 1
    discriminator_rate: NotNegative = 2.0
    adversarial_from: CountOrNone = 0
    dev_items: Count = 8

    @property
    def starts_from_istft(self) -> bool:
        """Whether another vocoder's waveform is iterated on."""
        return self.kind == "wavefit" and self.wavefit.initial == "istft"

    def problems(self) -> list[str]:
        """Say which settings do not fit one another or the models at hand."""
        found = mix_problems(self.data, self.batch)
        for key in _FOLDERS:
            folder = getattr(self, key)
            if folder and not Path(folder).expanduser().is_dir():
                found.append(f"{key}='{folder}' is no folder.")
        if self.starts_from_istft and not (self.start or self.istft_start):
            found.append(
                "wavefit.initial=istft starts from a trained vocoder; set istft_start=FOLDER."
            )
        try:
            if not is_hub_id(self.base):
                find_model(self.base or None)
        except (CatalogError, ConfigError) as error:
            found.append(str(error))
        return found

    def sources(self) -> dict[str, Path]:
        """Name the weights that the run reads."""
        found = base_sources(self.base)
        for key in _FOLDERS:
            if getattr(self, key):
                folder = Path(getattr(self, key)).expanduser()
                found |= {f"{key}/{path.name}": path for path in folder.glob("*.safetensors")}
        return found


def build(config: Config) -> VocoderObjective:
    """Make the objective of a run."""
    return VocoderObjective(config)


def _take_over(vocoder: Vocoder, name: str, key: str) -> None:
    """Give a vocoder the weights of a saved one of the same shape."""
    before = load_vocoder(Path(name).expanduser())
    if before.config != vocoder.config or before.speech != vocoder.speech:
        raise CheckpointError(
            f"{key}='{name}' holds a vocoder of the kind {before.kind} with {before.config} for "
            f"{before.speech}; this run asks for {vocoder.config} for {vocoder.speech}. Give it "
            "the same settings."
        )
    vocoder.load_state_dict(before.state_dict())


class VocoderObjective(Objective):
    """A vocoder and its discriminators.

    Args:
        config: The run.

    Raises:
        CheckpointError: The vocoder to start from is of another kind or shape.
    """

    score = "lsd_db"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.skips_parameters = config.adversarial_from > 0
        self.ears: Ears = load_ears(config.base, config.layer, config.cleaner)
        encoder = self.ears.encoder
        self.hop = frame_hop(encoder, config.sample_rate)
        self.crop_frames = max(1, round(config.crop_s * encoder.frame_rate))
        speech = Speech(encoder.dim, encoder.frame_rate, config.sample_rate)
        torch.manual_seed(config.trainer.seed)
        shape = config.wavefit if config.kind == "wavefit" else config.istft
        self.vocoder = make_vocoder(speech, shape)
        if isinstance(self.vocoder, WaveFitVocoder) and self.vocoder.start is not None:
            if config.istft_start:
                _take_over(self.vocoder.start, config.istft_start, "istft_start")
        if config.start:
            _take_over(self.vocoder, config.start, "start")
        self.discriminators = Discriminators(config.discriminators)
        parts = config.data, config.batch, config.source
        self.speech = clean_speech(*parts, config.trainer.seed, config.sample_rate)
        self.ids = self.speech.ids
        self.degradation = config.damage.degradation()
        self.dev = self._dev()

    def _dev(self) -> list[tuple[Signal, Signal]]:
        pairs = []
        for items in self.speech.dev_items(transcribed=False).values():
            pairs += [(signal, self._heard(signal, "dev", item.id)) for signal, item in items]
        return pairs[:: max(1, len(pairs) // self.config.dev_items)][: self.config.dev_items]

    def _heard(self, signal: Signal, *seed: int | str) -> Signal:
        """Return what the encoder hears of a clean signal."""
        if self.ears.cleaner is None:
            return signal
        return damaged(self.speech, signal, self.degradation, *seed)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VocoderObjective:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.ears.encoder._apply(fn, recurse)  # frozen, and no child
        return self

    def groups(self) -> Mapping[str, Group]:
        """Return the discriminators' own rate; see `Objective.groups`."""
        return {"discriminators.": Group(rate=self.config.discriminator_rate)}

    def clipped_apart(self) -> tuple[str, ...]:
        """Clip the discriminators' gradient on its own; see `Objective.clipped_apart`."""
        return ("discriminators.",)

    def batch(self, step: int, rank: int) -> Batch:
        """Build whole rows for the encoder and pieces for the vocoder; see `Objective.batch`."""
        seed, frames = self.config.trainer.seed, self.crop_frames
        signals = [row.signal for row in self.speech.rows(step, rank)]
        chances = [generator("crop", seed, step, rank, number) for number in range(len(signals))]
        pieces = [
            (signal, choose_start(signal, frames, self.hop, random))
            for signal, random in zip(signals, chances, strict=True)
            for _ in range(self.config.crops)
        ]
        heard = [
            self._heard(signal, seed, step, rank, number) for number, signal in enumerate(signals)
        ]
        features, lengths = self._features(heard)
        real = [cut_signal(signal, start, frames, self.hop) for signal, start in pieces]
        return {
            "features": features,
            "lengths": lengths,
            "starts": torch.tensor([start for _, start in pieces]),
            "real": torch.stack(real),
            "step": torch.tensor(step // self.config.trainer.accumulate),
        }

    def _features(self, heard: list[Signal]) -> tuple[Tensor, Tensor]:
        ears, rate = self.ears, self.config.sample_rate
        return ears.extract([framed(ears.waveform(one, rate), ears.encoder) for one in heard])

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the sum of the generator's and the discriminators' losses, and each term."""
        frames = self.ears.frames(batch["features"], batch["lengths"])
        frames = frames.repeat_interleave(self.config.crops, dim=0)
        piece = cut_frames(frames, batch["starts"], self.crop_frames)
        real = gain_adjusted(batch["real"])
        made = self.vocoder(piece)
        judged = int(batch["step"]) >= self.config.adversarial_from
        losses = duel(self.discriminators if judged else None, real, made, self.config.loss)
        total, figures = losses.total, losses.figures
        more = self.vocoder.auxiliary_loss(piece, real)
        if more is not None:
            total = total + self.config.loss.auxiliary * more
            figures["auxiliary"] = float(more.detach())
        return total, figures

    def summary(self) -> dict[str, str]:
        """Say what the run reads and trains; see `Objective.summary`."""
        made = sum(one.numel() for one in self.vocoder.parameters())
        judges = sum(one.numel() for one in self.discriminators.parameters())
        return self.speech.summary() | {
            "trained": f"vocoder {self.vocoder.kind}, {made:,} parameters, against "
            f"discriminators of {judges:,}"
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the mean log-spectral distance of dev recordings to the clean ones."""
        found = []
        for number, (clean, heard) in enumerate(self.dev):
            made = self._made(heard, derive_seed("dev", number))[: len(clean)]
            distance = log_spectral_distance(clean, made)
            if distance is not None:
                found.append(distance)
        return {"lsd_db": float(np.mean(found)) if found else float("nan")}

    def _made(self, heard: Signal, seed: int) -> Signal:
        features, lengths = self._features([heard])
        frames = self.ears.frames(features.to(self.device), lengths.to(self.device))
        random = torch.Generator().manual_seed(seed)
        made: Tensor = self.vocoder(frames, random=random)[-1][0]
        return np.asarray(made.float().cpu().numpy(), dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write the vocoder without its discriminators."""
        facts: dict[str, Any] = self.ears.facts()
        save_vocoder(self.vocoder, folder, facts)
