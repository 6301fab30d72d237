"""Self-supervised pre-training of an AST by masked-patch prediction, without labels.

A masked autoencoder (Audio-MAE, arXiv 2207.06405, section 3): most patches of the spectrogram are
left out, the encoder sees the rest alone, and a small decoder rebuilds the normalised values of the
missing ones. Patches do not overlap, as there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from speechadapt.audio.augment import AugmentConfig, Signal
from speechadapt.core.seed import derive_seed
from speechadapt.data.batch import BatchConfig
from speechadapt.encoders.features import ast_fbank
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch, Objective
from speechadapt.training.speech import DataConfig, SpeechBatches, SpeechRow, mix_problems


@dataclass(frozen=True)
class AstShape:
    """Shape of an AST.

    Args:
        dim: Width.
        layers: Number of layers.
        heads: Attention heads.
        feed_forward: Inner width of the feed-forwards.
        window_frames: Frames of 10 ms in the fixed window.
        patch: Side of the square patches, which do not overlap.
    """

    dim: int = 192
    layers: int = 6
    heads: int = 3
    feed_forward: int = 768
    window_frames: int = 512
    patch: int = 16


@dataclass(frozen=True)
class MaskingConfig:
    """What is hidden, and who rebuilds it.

    Args:
        hidden: Share of the patches left out.
        decoder_dim: Width of the decoder.
        decoder_layers: Layers of the decoder.
    """

    hidden: float = 0.75
    decoder_dim: int = 96
    decoder_layers: int = 2


@dataclass(frozen=True)
class Config:
    """Everything a pre-training run is made of.

    Args:
        data: Recordings, speech and sounds; transcripts and labels are not read.
        batch: Batches.
        augment: Augmentation of the signals.
        model: Shape.
        masking: What is hidden.
        crop: The part of a recording longer than the window that is looked at: its `start`, or a
            `random` one in training.
        trainer: Steps.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: AstShape = field(default_factory=AstShape)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    crop: Literal["start", "random"] = "start"
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def problems(self) -> list[str]:
        """Say which settings do not fit one another."""
        return mix_problems(self.data, self.batch)


def build(config: Config) -> MaskedPatchObjective:
    """Make the objective of a run."""
    return MaskedPatchObjective(config)


class MaskedPatchObjective(Objective):
    """Mean squared error on the normalised values of hidden patches.

    Args:
        config: The run.
    """

    score = "loss"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        shape = config.model
        torch.manual_seed(config.trainer.seed)
        self.extractor = ASTFeatureExtractor(max_length=shape.window_frames)
        self._window = shape.window_frames * 160
        self.model = ASTModel(
            ASTConfig(
                hidden_size=shape.dim,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                intermediate_size=shape.feed_forward,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                patch_size=shape.patch,
                frequency_stride=shape.patch,
                time_stride=shape.patch,
                max_length=shape.window_frames,
            )
        )
        nn.init.trunc_normal_(self.model.embeddings.position_embeddings, std=0.02)
        wide, values = config.masking.decoder_dim, shape.patch**2
        patches = self.model.embeddings.position_embeddings.shape[1] - 2
        self.bridge = nn.Linear(shape.dim, wide)
        self.hidden_token = nn.Parameter(torch.randn(wide) * 0.02)
        self.places = nn.Parameter(torch.randn(patches, wide) * 0.02)
        layer = nn.TransformerEncoderLayer(
            wide, 4, 4 * wide, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerEncoder(
            layer, config.masking.decoder_layers, nn.LayerNorm(wide), enable_nested_tensor=False
        )
        self.values = nn.Linear(wide, values)
        self.speech = SpeechBatches(
            config.data, config.batch, config.augment, config.trainer.seed, transcribed=False
        )
        self.ids = self.speech.ids
        self._dev = self.speech.dev()

    def batch(self, step: int, rank: int) -> Batch:
        """Build padded features and an order of the patches; see `Objective.batch`."""
        signals = [self._crop(row) for row in self.speech.rows(step, rank)]
        return self._inputs(signals, derive_seed(self.config.trainer.seed, "patches", step, rank))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the mean squared error over hidden patches (1 is what the mean alone gives)."""
        features, order = batch["features"], batch["order"]
        shown = order.shape[1] - round(order.shape[1] * self.config.masking.hidden)
        visible, hidden = order[:, :shown], order[:, shown:]
        states = self.bridge(self._encode(features, visible))
        rows = torch.arange(len(order), device=order.device)[:, None]
        canvas = (self.hidden_token + self.places).expand(len(order), -1, -1).clone()
        canvas[rows, visible] = (states[:, 2:] + self.places[visible]).to(canvas.dtype)
        rebuilt = self.values(self.decoder(canvas)[rows, hidden])
        wanted = self._patches(features)[rows, hidden]
        mean, deviation = wanted.mean(-1, keepdim=True), wanted.std(-1, keepdim=True)
        # Constant patches are the padding past a clip: nothing to learn there.
        real = (deviation > 1e-3).to(wanted.dtype)
        error = (rebuilt.float() - (wanted - mean) / (deviation + 1e-3)).square().mean(-1)
        loss = (error * real[..., 0]).sum() / real.sum().clamp(min=1)
        return loss, {"real": float(real.mean())}

    def summary(self) -> dict[str, str]:
        """Say what the run reads; see `Objective.summary`."""
        return self.speech.summary()

    def evaluate(self) -> dict[str, float]:
        """Score the loss on dev recordings, with a fixed choice of patches."""
        losses = []
        for name, items in self._dev.items():
            batch = self._inputs([signal for signal, _ in items[:24]], derive_seed("dev", name))
            losses.append(float(self({key: v.to(self.device) for key, v in batch.items()})[0]))
        return {"loss": sum(losses) / max(1, len(losses))}

    def save(self, folder: Path) -> None:
        """Write the encoder alone, a transformers folder in fp16."""
        folder.mkdir(parents=True, exist_ok=True)
        copy.deepcopy(self.model).to(torch.float16).save_pretrained(folder)
        self.extractor.save_pretrained(folder)

    def _crop(self, row: SpeechRow) -> Signal:
        room = len(row.signal) - self._window
        if self.config.crop == "start" or room <= 0:
            return row.signal
        return row.signal[int(row.random.integers(room + 1)) :]

    def _inputs(self, signals: list[Signal], seed: int) -> Batch:
        clips = [torch.from_numpy(item[: self._window]) for item in signals]
        features, _ = ast_fbank(clips, self.extractor)
        random = torch.Generator().manual_seed(seed)
        patches = self.places.shape[0]
        order = torch.rand(len(signals), patches, generator=random).argsort(1)
        return {"features": features, "order": order}

    def _encode(
        self, features: Float[Tensor, "batch frames mels"], visible: Int[Tensor, "batch shown"]
    ) -> Float[Tensor, "batch tokens dim"]:
        embeddings = self.model.embeddings(features)
        rows = torch.arange(len(features), device=features.device)[:, None]
        states = torch.cat([embeddings[:, :2], embeddings[:, 2:][rows, visible]], 1)
        for layer in self.model.layers:
            states = layer(states, None)
        output: Tensor = self.model.layernorm(states)
        return output

    def _patches(
        self, features: Float[Tensor, "batch frames mels"]
    ) -> Float[Tensor, "batch patches values"]:
        # The model numbers its patches with time running fastest.
        side = self.config.model.patch
        split = features.transpose(1, 2).unfold(1, side, side).unfold(2, side, side)
        return split.reshape(len(features), -1, side * side)
