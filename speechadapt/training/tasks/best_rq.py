"""Self-supervised pre-training with a random-projection quantiser (BEST-RQ, arXiv 2202.01855).

Stretches of the input are replaced by noise; from the rest the encoder predicts, at each masked
frame, the index of the nearest vector of a fixed random codebook to a fixed random projection of
the frame's own features (sections 3.1 and 3.2). Neither projection nor codebook is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.audio.augment import AugmentConfig
from speechadapt.core.files import atomic_write_json
from speechadapt.core.limits import Count, NotNegative, Positive, Probability
from speechadapt.core.seed import derive_seed
from speechadapt.core.shapes import Frames, Lengths, length_mask
from speechadapt.data.batch import BatchConfig
from speechadapt.encoders.w2v_bert import W2vBertEncoder
from speechadapt.text import alphabet as alphabets
from speechadapt.training.conformer import (
    ConformerConfig,
    new_extractor,
    new_model,
    save_model,
    stacked_features,
)
from speechadapt.training.from_scratch import (
    learned_weights,
    through_problems,
    traffic,
    train_through,
)
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch, Objective
from speechadapt.training.speech import DataConfig, SpeechBatches, mix_problems


@dataclass(frozen=True)
class QuantiserConfig:
    """Targets and masks.

    Args:
        codes: Vectors in the codebook.
        dim: Width of the codebook.
        mask_prob: Probability that a masked stretch starts at a frame.
        mask_s: Length of a masked stretch in seconds.
        noise: Deviation of the noise put in place of masked features.
    """

    codes: Count = 2048
    dim: Count = 16
    mask_prob: Probability = 0.03
    mask_s: Positive = 0.36
    noise: NotNegative = 0.1


@dataclass(frozen=True)
class Config:
    """Everything a pre-training run is made of.

    Args:
        data: Recordings; transcripts are not read.
        batch: Batches.
        augment: Augmentation.
        model: Shape.
        quantiser: Targets and masks.
        trainer: Steps.
        method: An adapter method that merges, trained in place of the weights it changes; empty
            trains every weight itself.
        adapter: The method's settings.
        roles: Role patterns; empty takes the method's own.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ConformerConfig = field(default_factory=ConformerConfig)
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    method: str = ""
    adapter: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """Say which settings do not fit one another."""
        return mix_problems(self.data, self.batch) + through_problems(self.method, self.adapter)


def build(config: Config) -> BestRqObjective:
    """Make the objective of a run."""
    return BestRqObjective(config)


class RandomProjectionQuantiser(nn.Module):
    """Maps feature frames to codebook indices; nothing in it is trained.

    Args:
        width: Width of the features.
        config: Size of the codebook.
        seed: Draws projection (Xavier uniform) and codebook (normal, unit length).
    """

    projection: Tensor
    codebook: Tensor

    def __init__(self, width: int, config: QuantiserConfig, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(derive_seed(seed, "quantiser"))
        bound = (6.0 / (width + config.dim)) ** 0.5
        projection = (torch.rand(width, config.dim, generator=random) * 2 - 1) * bound
        codebook = torch.randn(config.codes, config.dim, generator=random)
        self.register_buffer("projection", projection)
        self.register_buffer("codebook", functional.normalize(codebook, dim=-1))

    @torch.no_grad()
    def forward(self, features: Frames) -> Int[Tensor, "batch frames"]:
        """Return the index of the nearest code for every frame.

        Args:
            features: Normalised features, so that the codes are used evenly.
        """
        projected = functional.normalize(features @ self.projection, dim=-1)
        # Both sides have unit length: the nearest code has the largest inner product.
        return (projected @ self.codebook.T).argmax(-1)


def mask_starts_to_spans(
    starts: Bool[Tensor, "batch frames"], width: int
) -> Bool[Tensor, "batch frames"]:
    """Extend every start to a stretch of `width` frames; stretches may overlap."""
    padded = functional.pad(starts.float()[:, None], (width - 1, 0))
    return functional.max_pool1d(padded, width, stride=1)[:, 0] > 0


class BestRqObjective(Objective):
    """Cross-entropy of the codes at masked frames.

    Args:
        config: The run.
    """

    score = "loss"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        torch.manual_seed(config.trainer.seed)
        self._alphabet = alphabets.english()
        self._ctc = [new_model(config.model, self._alphabet)]  # listed, so not a submodule
        self.model = self._ctc[0].wav2vec2_bert
        self.extractor = new_extractor(config.model)
        self._encoder = [W2vBertEncoder(self.model, self.extractor)]
        width = 80 * config.model.stride
        self.quantiser = RandomProjectionQuantiser(width, config.quantiser, config.trainer.seed)
        self.head = nn.Linear(config.model.dim, config.quantiser.codes)
        self.steps = 0
        self.handle = (
            train_through(self._encoder[0], config.method, config.adapter, config.roles)
            if config.method
            else None
        )
        self.adapter = None if self.handle is None else self.handle.module
        self.speech = SpeechBatches(
            config.data, config.batch, config.augment, config.trainer.seed, transcribed=False
        )
        self.ids = self.speech.ids
        self.skips_parameters = config.model.layer_drop > 0
        self._dev = self.speech.dev()

    def batch(self, step: int, rank: int) -> Batch:
        """Build clean features and where to mask them; see `Objective.batch`."""
        rows = self.speech.rows(step, rank)
        features, lengths = stacked_features(
            rows, self.config.augment, self.config.model.stride, step
        )
        random = torch.Generator().manual_seed(
            derive_seed(self.config.trainer.seed, "mask", step, rank)
        )
        return {"features": features, "lengths": lengths} | self._masks(features, lengths, random)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the cross-entropy in nats, and the accuracy, over masked frames."""
        features, mask = batch["features"], batch["mask"]
        targets = self.quantiser(features)[mask]
        corrupted = torch.where(mask[..., None], batch["noise"], features)
        frames, _ = self._encoder[0](corrupted, batch["lengths"])
        logits = self.head(frames[mask])
        loss = functional.cross_entropy(logits.float(), targets)
        hits = (logits.argmax(-1) == targets).float().mean()
        used = targets.unique().numel() / self.config.quantiser.codes
        return loss, {"accuracy": float(hits), "codes_used": used}

    def summary(self) -> dict[str, str]:
        """Say what the run reads; see `Objective.summary`."""
        return self.speech.summary()

    def evaluate(self) -> dict[str, float]:
        """Score the loss on dev recordings, with fixed masks."""
        losses: list[float] = []
        accuracy: list[float] = []
        for name, items in self._dev.items():
            signals = [torch.from_numpy(signal) for signal, _ in items[:24]]
            features, lengths = self._encoder[0].extract(signals)
            random = torch.Generator().manual_seed(derive_seed("dev", name))
            batch = {"features": features, "lengths": lengths}
            batch |= self._masks(features, lengths, random)
            loss, extra = self({key: value.to(self.device) for key, value in batch.items()})
            losses.append(float(loss))
            accuracy.append(extra["accuracy"])
        count = max(1, len(losses))
        return {"loss": sum(losses) / count, "accuracy": sum(accuracy) / count}

    def after_step(self, step: int, seconds: float) -> None:
        """Let the method act; see `Objective.after_step`."""
        self.steps = step
        if self.handle is not None:
            self.handle.after_step(step)

    def save(self, folder: Path) -> None:
        """Write a transformers folder in fp16; its CTC head is untrained."""
        if self.handle is None:
            save_model(self._ctc[0], self.extractor, self._alphabet, folder)
            return
        with torch.random.fork_rng(devices=[]):
            plain = new_model(self.config.model, self._alphabet)  # without the adapter's hooks
        with learned_weights(self.handle):
            plain.load_state_dict(self._ctc[0].state_dict())
        save_model(plain, self.extractor, self._alphabet, folder)

    def finish(self, folder: Path) -> None:
        """Write `report.json` where a method was trained: what its workers would have sent."""
        if self.handle is not None and self.steps:
            atomic_write_json(folder / "report.json", traffic(self.handle, self.steps))

    def _masks(self, features: Frames, lengths: Lengths, random: torch.Generator) -> Batch:
        config = self.config.quantiser
        width = max(1, round(config.mask_s * 100 / self.config.model.stride))
        starts = torch.rand(features.shape[:2], generator=random) < config.mask_prob
        # Every row gets at least one stretch, else short clips would teach nothing.
        first = (torch.rand(len(lengths), generator=random) * lengths).long()
        starts[torch.arange(len(lengths)), first.clamp(max=features.shape[1] - 1)] = True
        mask = mask_starts_to_spans(starts, width) & length_mask(lengths, features.shape[1])
        noise = torch.randn(features.shape, generator=random) * config.noise
        return {"mask": mask, "noise": noise}
