"""Classification of clips on a frozen encoder: an adapter and a linear head on the mean frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters import store
from speechadapt.audio.augment import AugmentConfig
from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.core.files import atomic_write, atomic_write_json
from speechadapt.core.limits import Count, NotNegative, Positive, Probability
from speechadapt.core.seed import generator
from speechadapt.core.shapes import length_mask
from speechadapt.data.audio_cache import AudioCache
from speechadapt.data.corpora import pack
from speechadapt.data.manifest import Utterance
from speechadapt.models.build import find_model
from speechadapt.training.adapt_features import FeatureMaker
from speechadapt.training.adapt_parts import is_hub_id, load_base
from speechadapt.training.adapt_report import parameter_facts
from speechadapt.training.adapted import AdaptedObjective, Arm, method_problems
from speechadapt.training.clips import Clips, ClipsConfig, label_of, split_clips
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch
from speechadapt.training.speech import DataConfig, SpeechRow, data_root

HEAD_KIND = "mean_linear"
REPORT_FILE = "report.json"
_EVALUATED = 16  # clips encoded at a time


@dataclass(frozen=True)
class RowsConfig:
    """Size of the batches.

    Args:
        max_rows: Clips of a batch.
    """

    max_rows: Count = 16


@dataclass(frozen=True)
class Config:
    """Everything a classifier is made of.

    Args:
        data: Recordings; `train` names the labelled corpora, whose splits `clips` decides about.
        clips: Folds, and what is held out to choose on.
        batch: Batches.
        augment: Augmentation of the features; that of signals is not used.
        trainer: Steps; its learning rate and weight decay hold where no other is given.
        base: The model to adapt: a bundled one, a folder or a hub id.
        padding: How an encoder with a window is padded.
        arm: What is trained beside the head: the adapter, nothing (`head`), or every weight
            (`full`).
        method: The adapter method.
        adapter: The method's settings.
        roles: Role patterns; empty takes the method's own.
        train_norms: Which norms are trained beside it.
        adapter_rate: Peak learning rate of the adapter.
        head_rate: Peak learning rate of the head.
        adapter_decay: Weight decay of the adapter.
        head_decay: Weight decay of the head.
        head_dropout: On the mean frame.
    """

    data: DataConfig = field(default_factory=DataConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    batch: RowsConfig = field(default_factory=RowsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    base: str = "mini-ast"
    padding: Literal["full", "native"] = "full"
    arm: Arm = "adapter"
    method: str = "lora"
    adapter: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    train_norms: Literal["none", "adapted", "all"] = "none"
    adapter_rate: Positive | None = None
    head_rate: Positive | None = None
    adapter_decay: NotNegative | None = None
    head_decay: NotNegative | None = None
    head_dropout: Probability = 0.1

    def problems(self) -> list[str]:
        """Say which settings do not fit one another, the method or the models at hand."""
        found = method_problems(self)
        try:
            if not is_hub_id(self.base):
                find_model(self.base)
        except (CatalogError, ConfigError) as error:
            found.append(str(error))
        return found


def build(config: Config) -> ClassifyObjective:
    """Make the objective of a run."""
    return ClassifyObjective(config)


class MeanHead(nn.Module):
    """Class scores of a clip: a layer norm and a linear map on the mean of its frames.

    Args:
        dim: Width of the frames.
        classes: Number of classes.
        dropout: On the mean frame, in training.
    """

    def __init__(self, dim: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, classes)

    def forward(
        self, frames: Float[Tensor, "batch frames dim"], lengths: Tensor
    ) -> Float[Tensor, "batch classes"]:
        """Return the scores, padding left out of the mean.

        Args:
            frames: Encoder frames.
            lengths: Valid frames per row, at least 1.
        """
        mask = length_mask(lengths, frames.shape[1])[..., None].to(frames.dtype)
        mean = (frames * mask).sum(1) / mask.sum(1)
        scores: Tensor = self.linear(self.dropout(self.norm(mean)))
        return scores


class ClassifyObjective(AdaptedObjective):
    """Cross-entropy over the classes of a labelled corpus.

    Args:
        config: The run.

    Attributes:
        clips: What is trained on, chosen on and reported on.
        labels: The classes in the order of the head's outputs.
    """

    score = "error"

    def __init__(self, config: Config) -> None:
        encoder, _ = load_base(config.base, config.padding)
        torch.manual_seed(config.trainer.seed)
        super().__init__(encoder, config)
        self.config = config
        self.clips: Clips = split_clips(config.data, config.clips)
        self.labels = self.clips.labels
        self.ids = tuple(sorted(item.id for item in self.clips.train))
        self.head = MeanHead(encoder.dim, len(self.labels), config.head_dropout)
        self._make = FeatureMaker(encoder, config.augment)
        self._audio = {
            name: AudioCache(items, self._read, encoder.sample_rate)
            for name, items in vars(self.clips).items()
        }

    def _read(self, item: Utterance) -> tuple[Any, int]:
        return pack.read_audio(data_root(self.config.data), item)

    def batch(self, step: int, rank: int) -> Batch:
        """Draw clips, every one once before any comes again; see `Objective.batch`."""
        count, rows = len(self.clips.train), self.config.batch.max_rows
        places = range(step * rows, (step + 1) * rows)
        seed = self.config.trainer.seed
        orders = {
            turn: generator(seed, "order", turn, rank).permutation(count)
            for turn in {place // count for place in places}
        }
        chosen = [int(orders[place // count][place % count]) for place in places]
        random = generator(seed, "clips", step, rank)
        signals = [SpeechRow(self._audio["train"][index], "", random) for index in chosen]
        features, lengths = self._make(signals, step)
        labels = [self.labels.index(label_of(self.clips.train[index])) for index in chosen]
        return {"features": features, "lengths": lengths, "labels": torch.tensor(labels)}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the cross-entropy in nats, the method's penalty added, and the training error."""
        if self.training:
            self.meter.start()
        scores = self.head(*self.encoder(batch["features"], batch["lengths"]))
        loss = functional.cross_entropy(scores, batch["labels"])
        wrong = scores.detach().argmax(-1) != batch["labels"]
        figures = {"train_error": float(wrong.float().mean())}
        return self.with_penalty(loss, figures), figures

    def evaluate(self) -> dict[str, float]:
        """Return the share of dev clips whose class is missed."""
        items = self.clips.dev
        if not items:
            return {"error": float("nan")}
        found = self.predict("dev")
        wrong = [name != label_of(item) for name, item in zip(found, items, strict=True)]
        return {"error": float(np.mean(wrong))}

    @torch.no_grad()
    def predict(self, part: str) -> list[str]:
        """Return the class found for each clip of `train`, `dev` or `test`."""
        audio, found = self._audio[part], list[str]()
        for start in range(0, len(audio), _EVALUATED):
            indices = range(start, min(len(audio), start + _EVALUATED))
            found += self._classes([torch.from_numpy(audio[index]) for index in indices])
        return found

    def _classes(self, signals: Sequence[Tensor]) -> list[str]:
        most = self.encoder.window_s
        count = None if most is None else round(most * self.encoder.sample_rate)
        clips = [signal[:count].to(self.device) for signal in signals]
        best = self.head(*self.encoder.encode(clips)).argmax(-1)
        return [self.labels[index] for index in best.tolist()]

    def summary(self) -> dict[str, str]:
        """Say what the run reads and trains; see `Objective.summary`."""
        sizes = ", ".join(f"{len(items)} {name}" for name, items in vars(self.clips).items())
        return {
            "train": f"{sizes}, {len(self.labels)} classes",
            "a micro-step": f"{self.config.batch.max_rows} clips",
            "trained": self.what,
        }

    def save(self, folder: Path) -> None:
        """Write the adapter with its head, or the tensors of another arm."""
        described = {"kind": HEAD_KIND, "labels": list(self.labels)}
        training = {"data": self.summary()["train"], "steps": self.steps}
        scores = self.evaluate()
        if self.handle is not None:
            store.save(
                self.handle,
                folder,
                training=training,
                scores=scores,
                head=self.head.state_dict(),
                head_config=described,
            )
            return
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        atomic_write(folder / "classifier.safetensors", lambda path: save_file(tensors, path))
        atomic_write_json(folder / "classifier.json", described | {"base": self.config.base})

    def finish(self, folder: Path) -> None:
        """Write `report.json`: parameters, memory, time and the dev error."""
        whole = sum(part.numel() for part in self.encoder.model.parameters())
        report = {
            "what": self.what,
            "parameters": parameter_facts(self.trained_parameters(), whole),
            **self.meter.facts(),
        }
        atomic_write_json(folder / REPORT_FILE, report)
