"""Recognition with a Whisper-architecture encoder-decoder on its full padded window.

The decoder is trained by next-token cross-entropy; an auxiliary CTC loss over characters on the
encoder's frames (hybrid training, arXiv 1609.06773) makes the attention find its alignment early,
and where a teacher is given the frames also learn to predict its frames. Neither is saved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from speechadapt.audio.augment import AugmentConfig, Signal, augment_features
from speechadapt.core.limits import Count, NotNegative, Probability
from speechadapt.core.seed import generator
from speechadapt.data.batch import BatchConfig
from speechadapt.encoders.whisper import WhisperEncoder
from speechadapt.text import alphabet as alphabets
from speechadapt.training.ctc_loss import ctc_per_label
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch, Objective
from speechadapt.training.scores import corpus_wer
from speechadapt.training.sources import missing_models, model_folder, weight_files
from speechadapt.training.speech import DataConfig, SpeechBatches, SpeechRow, mix_problems
from speechadapt.training.teacher import FrameTeacher
from speechadapt.training.whisper_model import (
    WhisperShape,
    greedy,
    new_model,
    prefix_ids,
    save_model,
    train_tokenizer,
)

_IGNORED = -100


@dataclass(frozen=True)
class Config:
    """Everything an encoder-decoder run is made of.

    Args:
        data: Recordings.
        batch: Batches; every row costs a whole window, so `max_rows` sets the cost.
        augment: Augmentation.
        model: Shape.
        trainer: Steps.
        init: Bundled model or folder, of this shape, to start from with its tokenizer.
        ctc_weight: Share of the auxiliary CTC loss.
        teacher: Bundled model or folder whose encoder's frames are to be predicted; empty: none.
        teacher_weight: Weight of that prediction's error, beside the other two losses.
        no_speech_prob: Share of rows that hold noise alone.
        label_smoothing: Of the next-token loss.
        dev_items: Most dev recordings scored per corpus.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: WhisperShape = field(default_factory=WhisperShape)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    init: str = ""
    ctc_weight: Probability = 0.3
    teacher: str = ""
    teacher_weight: NotNegative = 1.0
    no_speech_prob: Probability = 0.03
    label_smoothing: Probability = 0.05
    dev_items: Count = 60

    def problems(self) -> list[str]:
        """Say which settings do not fit one another."""
        return mix_problems(self.data, self.batch) + missing_models(self._models())

    def sources(self) -> dict[str, Path]:
        """Name the files, besides the manifests, that the result depends on."""
        return weight_files(self._models())

    def _models(self) -> dict[str, str]:
        return {"init": self.init, "teacher": self.teacher}


def build(config: Config) -> Seq2SeqObjective:
    """Make the objective of a run."""
    return Seq2SeqObjective(config)


class Seq2SeqObjective(Objective):
    """A `WhisperForConditionalGeneration` with next-token and auxiliary CTC losses.

    Args:
        config: The run.
    """

    score = "wer"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.alphabet = alphabets.english()
        self.speech = SpeechBatches(config.data, config.batch, config.augment, config.trainer.seed)
        self.ids = self.speech.ids
        texts = sorted(item.text or "" for item in self.speech.utterances)
        self.tokenizer = (
            WhisperTokenizer.from_pretrained(model_folder(config.init))
            if config.init
            else train_tokenizer(texts, config.model)
        )
        self.prefix = prefix_ids(self.tokenizer)
        self.no_speech = int(self.tokenizer.convert_tokens_to_ids("<|nospeech|>"))
        self.extractor = WhisperFeatureExtractor(
            feature_size=80, chunk_length=config.model.window_s
        )
        self.window = config.model.window_s * self.speech.sample_rate
        torch.manual_seed(config.trainer.seed)
        self.model = new_model(config.model, self.tokenizer)
        if config.init:
            start = WhisperForConditionalGeneration.from_pretrained(
                model_folder(config.init), dtype=torch.float32, use_safetensors=True
            )
            self.model.load_state_dict(start.state_dict())
        self.ctc_head = nn.Linear(config.model.dim, len(self.alphabet.symbols))
        self._encoder = [WhisperEncoder(self.model, self.extractor)]  # listed: not a submodule
        self.teacher = (
            FrameTeacher(
                model_folder(config.teacher), config.model.dim, self._encoder[0].frame_rate
            )
            if config.teacher
            else None
        )
        self._dev = self.speech.dev()

    def batch(self, step: int, rank: int) -> Batch:
        """Build features, tokens and characters; see `Objective.batch`."""
        random = generator(self.config.trainer.seed, "no speech", step, rank)
        rows = [self._or_noise(row, random) for row in self.speech.rows(step, rank)]
        signals = [torch.from_numpy(row.signal[: self.window]) for row in rows]
        features, plain, lengths = self._features(signals, rows, step)
        texts = [row.text for row in rows]
        inputs, labels = self._tokens(texts)
        symbols = [torch.tensor(self.alphabet.encode(text), dtype=torch.long) for text in texts]
        stretch = (plain / lengths).tolist()
        taught = {} if self.teacher is None else self.teacher.inputs(signals, stretch)
        return taught | {
            "features": features,
            "lengths": lengths,
            "inputs": inputs,
            "labels": labels,
            "symbols": nn.utils.rnn.pad_sequence(symbols, batch_first=True),
            "symbol_lengths": torch.tensor([len(item) for item in symbols]),
        }

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the weighted sum of both losses in nats, and each alone."""
        frames, lengths = self._encoder[0](batch["features"], batch["lengths"])
        output = self.model.model.decoder(
            input_ids=batch["inputs"], encoder_hidden_states=frames, use_cache=False
        )
        logits = self.model.proj_out(output.last_hidden_state).float()
        attention = functional.cross_entropy(
            logits.transpose(1, 2),
            batch["labels"],
            ignore_index=_IGNORED,
            label_smoothing=self.config.label_smoothing,
        )
        ctc, _ = ctc_per_label(
            self.ctc_head(frames),
            lengths,
            batch["symbols"],
            batch["symbol_lengths"],
            self.alphabet.blank_id,
        )
        weight = self.config.ctc_weight
        figures = {"attention": float(attention.detach()), "ctc": float(ctc.detach())}
        loss = (1 - weight) * attention + weight * ctc
        if self.teacher is not None:
            error = self.teacher(frames, lengths, batch)
            figures["teacher"] = float(error.detach())
            loss = loss + self.config.teacher_weight * error
        return loss, figures

    def summary(self) -> dict[str, str]:
        """Say what the run reads; see `Objective.summary`."""
        return self.speech.summary()

    def evaluate(self) -> dict[str, float]:
        """Score greedy decoding on the dev sets: WER by corpus and their mean."""
        most = self.config.dev_items
        sets = {name: items[:: max(1, len(items) // most)] for name, items in self._dev.items()}
        return corpus_wer(sets, self._read, rows=16)

    def save(self, folder: Path) -> None:
        """Write a transformers folder in fp16."""
        save_model(self.model, self.extractor, self.tokenizer, folder)

    def _or_noise(self, row: SpeechRow, random: np.random.Generator) -> SpeechRow:
        if random.random() >= self.config.no_speech_prob:
            return row
        seconds = float(random.uniform(0.3, self.config.model.window_s * 0.9))
        return SpeechRow(self.speech.noise_row(seconds, row.random), "", row.random)

    def _features(
        self, signals: list[Tensor], rows: list[SpeechRow], step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        features, lengths = self._encoder[0].extract(signals)
        counts: list[int] = []
        for number, (row, length) in enumerate(zip(rows, lengths.tolist(), strict=True)):
            values = features[number, :, :length].T.numpy()
            changed = augment_features(values, self.config.augment, row.random, step)
            changed = changed[: features.shape[2]]
            # The rest of the window is silence: the lowest value the extractor lets through.
            features[number] = float(features[number].min())
            features[number, :, : len(changed)] = torch.from_numpy(changed.T)
            counts.append(len(changed))
        return features, lengths, torch.tensor(counts)

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        end = int(self.model.config.eos_token_id)
        inputs: list[Tensor] = []
        labels: list[Tensor] = []
        for text in texts:
            written = self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
            tokens = [*self.prefix, *(written if text else []), end]
            tokens = tokens[: self.config.model.target_tokens + 1]  # what has no position is cut
            wanted = list(tokens[1:])
            if not text:
                # One sequence teaches both: no-speech at the start token, and an empty text
                # where the prefix is forced all the same.
                wanted[0] = self.no_speech
            inputs.append(torch.tensor(tokens[:-1]))
            labels.append(torch.tensor(wanted))
        pad = nn.utils.rnn.pad_sequence
        return (
            pad(inputs, batch_first=True, padding_value=end),
            pad(labels, batch_first=True, padding_value=_IGNORED),
        )

    def _read(self, signals: list[Signal]) -> list[str]:
        waveforms = [torch.from_numpy(signal[: self.window]).to(self.device) for signal in signals]
        frames, _ = self._encoder[0].encode(waveforms)
        most = min(60, self.config.model.target_tokens - len(self.prefix))
        rows = greedy(self.model, frames, self.prefix, most)
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
