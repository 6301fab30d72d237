"""Recognition with CTC over characters on a Conformer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import Wav2Vec2BertForCTC

from speechadapt.audio.augment import AugmentConfig, Signal
from speechadapt.audio.margin import SETTINGS_FILE, add_margin
from speechadapt.core.files import atomic_write_json
from speechadapt.core.limits import NotNegative
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
from speechadapt.training.ctc_loss import ctc_per_label
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch, Objective
from speechadapt.training.scores import corpus_wer
from speechadapt.training.sources import missing_models, model_folder, weight_files
from speechadapt.training.speech import DataConfig, SpeechBatches, mix_problems


@dataclass(frozen=True)
class Config:
    """Everything a CTC run is made of.

    Args:
        data: Recordings.
        batch: Batches.
        augment: Augmentation.
        model: Shape, where no `init` is given.
        trainer: Steps.
        init: Bundled model or folder to start from (its CTC head is kept only if `keep_head`).
        keep_head: Keep the head of `init`.
        margin_s: Faint hiss put on either side of a clip when it is read, in seconds; stored with
            the model.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ConformerConfig = field(default_factory=ConformerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    init: str = ""
    keep_head: bool = False
    margin_s: NotNegative = 0.1

    def problems(self) -> list[str]:
        """Say which settings do not fit one another, and where `init` holds no model."""
        return mix_problems(self.data, self.batch) + missing_models({"init": self.init})

    def sources(self) -> dict[str, Path]:
        """Name the files, besides the manifests, that the result depends on."""
        return weight_files({"init": self.init})


def build(config: Config) -> CtcObjective:
    """Make the objective of a run."""
    return CtcObjective(config)


class CtcObjective(Objective):
    """A `Wav2Vec2BertForCTC` with the CTC loss, per label.

    Args:
        config: The run.
    """

    score = "wer"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.alphabet = alphabets.english()
        torch.manual_seed(config.trainer.seed)
        self.model = new_model(config.model, self.alphabet)
        if config.init:
            start = Wav2Vec2BertForCTC.from_pretrained(
                model_folder(config.init), dtype=torch.float32, use_safetensors=True
            )
            self.model.wav2vec2_bert.load_state_dict(start.wav2vec2_bert.state_dict())
            if config.keep_head:
                self.model.lm_head.load_state_dict(start.lm_head.state_dict())
        self.extractor = new_extractor(config.model)
        self.encoder = W2vBertEncoder(self.model.wav2vec2_bert, self.extractor)
        self.speech = SpeechBatches(config.data, config.batch, config.augment, config.trainer.seed)
        self.ids = self.speech.ids
        self.skips_parameters = config.model.layer_drop > 0
        self._dev = self.speech.dev()

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the model's tensors once, under `model.` alone."""
        return {f"model.{name}": value for name, value in self.model.state_dict().items()}

    def load_state_dict(self, state_dict, strict=True, assign=False):  # type: ignore[no-untyped-def]
        """Load tensors named as `state_dict` names them."""
        plain = {name.removeprefix("model."): value for name, value in state_dict.items()}
        return self.model.load_state_dict(plain, strict=strict, assign=assign)

    def batch(self, step: int, rank: int) -> Batch:
        """Build features and labels; see `Objective.batch`."""
        rows = self.speech.rows(step, rank)
        features, lengths = stacked_features(
            rows, self.config.augment, self.config.model.stride, step
        )
        labels = [torch.tensor(self.alphabet.encode(row.text)) for row in rows]
        return {
            "features": features,
            "lengths": lengths,
            "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=0),
            "label_lengths": torch.tensor([len(item) for item in labels]),
        }

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the CTC loss in nats per label and the share of rows too short for their text."""
        frames, lengths = self.encoder(batch["features"], batch["lengths"])
        loss, fits = ctc_per_label(
            self.model.lm_head(self.model.dropout(frames)),
            lengths,
            batch["labels"],
            batch["label_lengths"],
            self.alphabet.blank_id,
        )
        return loss, {"too_short": float((~fits).float().mean())}

    def summary(self) -> dict[str, str]:
        """Say what the run reads; see `Objective.summary`."""
        return self.speech.summary()

    def evaluate(self) -> dict[str, float]:
        """Score greedy decoding on the dev sets: WER by corpus and their mean."""
        return corpus_wer(self._dev, self._read)

    def save(self, folder: Path) -> None:
        """Write a transformers folder in fp16."""
        save_model(self.model, self.extractor, self.alphabet, folder)
        atomic_write_json(folder / SETTINGS_FILE, {"margin_s": self.config.margin_s})

    def _read(self, signals: list[Signal]) -> list[str]:
        rate, margin_s = self.speech.sample_rate, self.config.margin_s
        padded = [add_margin(signal, rate, margin_s) for signal in signals]
        waveforms = [torch.from_numpy(signal).to(self.device) for signal in padded]
        frames, lengths = self.encoder.encode(waveforms)
        best = self.model.lm_head(frames).argmax(-1).cpu()
        return [
            self.alphabet.decode(row[:length].tolist())
            for row, length in zip(best, lengths.tolist(), strict=True)
        ]
