"""Classification of clips on a frozen encoder: an adapter and a linear head on the mean frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from speechadapt.adapters.attach import active
from speechadapt.adapters.packed import unpacked
from speechadapt.audio.augment import AugmentConfig
from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.core.files import atomic_write, atomic_write_json, read_json
from speechadapt.core.limits import Count, CountOrNone, NotNegative, Positive, Probability
from speechadapt.core.seed import generator
from speechadapt.core.shapes import Frames, Lengths, length_mask
from speechadapt.data.audio_cache import AudioCache
from speechadapt.data.corpora import pack
from speechadapt.data.manifest import Utterance
from speechadapt.models.build import find_model
from speechadapt.training.adapt.clips import Clips, ClipsConfig, label_of, split_clips
from speechadapt.training.adapt.features import FeatureMaker
from speechadapt.training.adapt.objective import AdaptedObjective, Arm, method_problems
from speechadapt.training.adapt.parts import is_hub_id, load_base
from speechadapt.training.adapt.report import parameter_facts
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch
from speechadapt.training.speech import DataConfig, SpeechRow, data_root

HEAD_KIND = "mean_linear"
REPORT_FILE = "report.json"
_CLASSIFIER = "classifier"  # the files of an arm without an adapter
_EVALUATED = 16  # clips encoded at a time
_START_RATE = 3e-3  # of the head alone


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
        head_start: Steps of the head alone on the frozen encoder's mean frames, all of them at
            once, before anything else is trained, so that the first gradients an adapter gets mean
            something (https://arxiv.org/abs/2202.10054 section 4).
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
    head_start: CountOrNone = 0

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
    objective = ClassifyObjective(config)
    objective.start_head()
    return objective


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
        return self.read(mean_frame(frames, lengths))

    def read(self, mean: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Return the scores of mean frames.

        Args:
            mean: As `mean_frame` returns them.
        """
        scores: Tensor = self.linear(self.dropout(self.norm(mean)))
        return scores


def mean_frame(
    frames: Float[Tensor, "batch frames dim"], lengths: Tensor
) -> Float[Tensor, "batch dim"]:
    """Return the mean of every row's valid frames.

    Args:
        frames: Encoder frames.
        lengths: Valid frames per row, at least 1.
    """
    mask = length_mask(lengths, frames.shape[1])[..., None].to(frames.dtype)
    return (frames * mask).sum(1) / mask.sum(1)


class ClassifyObjective(AdaptedObjective):
    """Cross-entropy over the classes of a labelled corpus.

    Args:
        config: The run.

    Attributes:
        clips: What is trained on, chosen on and reported on.
        labels: The classes in the order of the head's outputs.
        scores: What the last evaluation found.
    """

    score = "error"
    head: MeanHead

    def __init__(self, config: Config) -> None:
        encoder, _ = load_base(config.base, config.padding)
        clips = split_clips(config.data, config.clips)
        torch.manual_seed(config.trainer.seed)
        # before any adapter draws its start, so that every arm has the same head
        head = MeanHead(encoder.dim, len(clips.labels), config.head_dropout)
        super().__init__(encoder, config)
        self.config = config
        self.clips: Clips = clips
        self.labels = clips.labels
        self.ids = tuple(sorted(item.id for item in self.clips.train))
        self.head = head
        self.scores: dict[str, float] = {}
        self._make = FeatureMaker(encoder, config.augment)
        self._audio = {
            name: AudioCache(items, self._read, encoder.sample_rate)
            for name, items in vars(self.clips).items()
        }

    def _read(self, item: Utterance) -> tuple[Any, int]:
        return pack.read_audio(data_root(self.config.data), item)

    def start_head(self) -> None:
        """Train the head alone for `head_start` steps, on frames without any adapter."""
        if not self.config.head_start:
            return
        with active(self.encoder, None):
            means = torch.cat([mean_frame(*part).clone() for part in self._encoded("train")])
        labels = torch.tensor(
            [self.labels.index(label_of(item)) for item in self.clips.train], device=means.device
        )
        torch.manual_seed(self.config.trainer.seed)
        optimiser = torch.optim.AdamW(self.head.parameters(), _START_RATE)
        self.head.train()
        with torch.enable_grad():
            for _ in range(self.config.head_start):
                optimiser.zero_grad()
                loss: Any = functional.cross_entropy(self.head.read(means), labels)
                loss.backward()
                optimiser.step()
        optimiser.zero_grad()

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
        scores = self._scores(batch)
        loss = functional.cross_entropy(scores, batch["labels"])
        wrong = scores.detach().argmax(-1) != batch["labels"]
        figures = {"train_error": float(wrong.float().mean())}
        loss = self.with_agreement(loss, scores, lambda: (self._scores(batch), None), figures)
        return self.with_penalty(loss, figures), figures

    def _scores(self, batch: Batch) -> Float[Tensor, "batch classes"]:
        scores: Tensor = self.head(*self.encoder(batch["features"], batch["lengths"]))
        return scores

    def evaluate(self) -> dict[str, float]:
        """Return the share of dev clips whose class is missed."""
        wrong = self.misses("dev")
        self.scores = {"error": float(np.mean(wrong)) if wrong else float("nan")}
        return self.scores

    def misses(self, part: str) -> list[bool]:
        """Return for each clip of a part whether its class is missed; see `predict`."""
        items = getattr(self.clips, part)
        return [
            name != label_of(item) for name, item in zip(self.predict(part), items, strict=True)
        ]

    @torch.no_grad()
    def predict(self, part: str) -> list[str]:
        """Return the class found for each clip of `train`, `dev` or `test`."""
        best = [self.head(*each).argmax(-1).tolist() for each in self._encoded(part)]
        return [self.labels[index] for each in best for index in each]

    def _encoded(self, part: str) -> Iterator[tuple[Frames, Lengths]]:
        """Encode the clips of a part, some at a time."""
        audio, most = self._audio[part], self.encoder.window_s
        count = None if most is None else round(most * self.encoder.sample_rate)
        for start in range(0, len(audio), _EVALUATED):
            indices = range(start, min(len(audio), start + _EVALUATED))
            signals = [torch.from_numpy(audio[index])[:count] for index in indices]
            with torch.no_grad():
                frames, lengths = self.encoder.encode([one.to(self.device) for one in signals])
            yield frames, lengths

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
        if not self.scores:
            self.eval()
            self.evaluate()
        described = {"kind": HEAD_KIND, "labels": list(self.labels)}
        if self.handle is not None:
            training = {"data": self.summary()["train"], "steps": self.steps}
            store.save(
                self.handle,
                folder,
                training=training,
                scores=self.scores,
                head=self.head.state_dict(),
                head_config=described,
            )
            return
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        path = folder / f"{_CLASSIFIER}.safetensors"
        atomic_write(path, lambda place: save_file(tensors, place))
        atomic_write_json(folder / f"{_CLASSIFIER}.json", described | {"base": self.config.base})

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote, in a run of the same arm, method and classes.

        Args:
            folder: Where it lies.

        Raises:
            CheckpointError: It is damaged, of other classes, or belongs to another base.
        """
        if self.handle is None:
            own, path = self.state_dict(), folder / f"{_CLASSIFIER}.safetensors"
            kept = store.read_tensors(folder, path.name)
            described = read_json(folder / f"{_CLASSIFIER}.json")
        else:
            stored = store.read(folder)
            store.check_base(self.encoder, stored)
            path = folder / store.WEIGHTS
            own, kept = unpacked(self.handle, stored.tensors, path)
            own |= {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
            kept |= {f"head.{name}": tensor for name, tensor in stored.head.items()}
            described = stored.details.get("head") or {}
        if described.get("labels") != list(self.labels):
            raise CheckpointError(
                f"'{folder}' tells apart {described.get('labels')}, this run {list(self.labels)}."
            )
        store.fill(own, kept, path, self.what)

    def finish(self, folder: Path) -> None:
        """Write `report.json`: parameters, memory, time, file size and the dev error."""
        path = folder / REPORT_FILE
        if not self.meter.seconds and path.is_file():
            return  # the run was finished before
        whole = sum(part.numel() for part in self.encoder.model.parameters())
        files = (folder / "last").glob("*.safetensors")
        report = {
            "what": self.what,
            "parameters": parameter_facts(self.trained_parameters(), whole),
            **self.meter.facts(),
            "file_bytes": sum(one.stat().st_size for one in files),
            "dev": {**self.scores, "items": len(self.clips.dev)},
        }
        atomic_write_json(path, report)
