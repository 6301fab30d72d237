"""A speaker model: recordings become vectors that are near for one voice and far for two.

It judges what a restorer does to voices, so it shares no weights with any encoder: a small x-vector
model on log-mel features, trained to name the speaker of short pieces of degraded recordings. Every
playback speed of a speaker counts as a voice of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from speechadapt.audio.augment import Signal, change_speed
from speechadapt.core.errors import DataError
from speechadapt.core.limits import Count, Positive, PositiveInterval, Probability, Range
from speechadapt.core.seed import generator
from speechadapt.data.batch import BatchConfig, Row
from speechadapt.data.manifest import Utterance
from speechadapt.encoders.features import seamless_fbank
from speechadapt.metrics.verification import verify
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch, Objective
from speechadapt.training.restoration.pairs import (
    DamageConfig,
    SourceConfig,
    clean_speech,
    damaged,
)
from speechadapt.training.speech import DataConfig, mix_problems
from speechadapt.training.xvector import (
    XvectorConfig,
    new_xvector,
    pieces,
    save_xvector,
    start_apart,
)

_MOST_PARTS = 6  # recordings joined for one piece
_RATE = 16000  # Hz


@dataclass(frozen=True)
class Config:
    """Everything the training of a speaker model is made of.

    Args:
        data: Recordings whose speaker is named, noise and rooms; transcripts are not read.
        batch: Batches, of which `max_rows` and `weights` (shares of the corpora; empty draws every
            speaker alike) are read.
        damage: What pieces suffer.
        model: Shape and loss.
        trainer: Steps.
        crop_s: Shortest and longest piece; all of a batch are as long.
        speeds: Playback factors; each makes another voice of every speaker.
        unchanged_prob: Share of pieces at their own speed.
        piece_s: Length of the pieces that dev recordings are cut into.
        start_batches: Batches that the vectors' start is taken from (see `start_apart`).
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    model: XvectorConfig = field(default_factory=XvectorConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    crop_s: PositiveInterval = (1.0, 2.5)
    speeds: Annotated[tuple[float, ...], Range(above=0.0)] = (0.9, 1.1)
    unchanged_prob: Probability = 0.5
    piece_s: Positive = 3.0
    start_batches: Count = 40

    def problems(self) -> list[str]:
        """Say which settings do not fit one another."""
        found = mix_problems(self.data, self.batch)
        shortest = 0.01 * self.model.stride * (self.model.context + 2)
        if self.crop_s[0] < shortest:
            found.append(
                f"crop_s starts at {self.crop_s[0]:g} s, but the convolutions see {shortest:g} s."
            )
        return found


def build(config: Config) -> SpeakerObjective:
    """Make the objective of a run."""
    return SpeakerObjective(config)


class SpeakerObjective(Objective):
    """Cross-entropy of the speaker with an additive margin; the score is the equal error rate.

    Args:
        config: The run.

    Raises:
        DataError: Fewer than two speakers are named.
    """

    score = "eer"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        seed = config.trainer.seed
        unchanged = SourceConfig(speed_prob=0.0, gain_db=(0.0, 0.0))
        self.speech = clean_speech(config.data, config.batch, unchanged, seed, _RATE)
        self.ids = self.speech.ids
        self.degradation = config.damage.degradation()
        self._recordings = _by_speaker(self.speech.utterances)
        if len(self._recordings) < 2:
            raise DataError(
                f"speakers were to be told apart, but the recordings name {len(self._recordings)}."
            )
        self._chance = _chances(self._recordings, self.speech.utterances, config.batch)
        torch.manual_seed(seed)
        voices = len(self._recordings) * (1 + len(config.speeds))
        self.model = new_xvector(config.model, voices)
        drawn = (self.batch(step, 0) for step in range(config.start_batches))
        start_apart(self.model, ((one["features"], one["labels"]) for one in drawn))
        self._dev = self._trials()

    def batch(self, step: int, rank: int) -> Batch:
        """Draw pieces of one length, each of a speaker drawn; see `Objective.batch`."""
        seed = self.config.trainer.seed
        random = generator("speakers", seed, step, rank)
        count = round(float(random.uniform(*self.config.crop_s)) * _RATE)
        signals, labels = [], []
        for number in range(self.config.batch.max_rows):
            speaker = int(random.choice(len(self._chance), p=self._chance))
            voice = 0
            if self.config.speeds and random.random() >= self.config.unchanged_prob:
                voice = 1 + int(random.integers(len(self.config.speeds)))
            piece = self._piece(speaker, voice, count, random, (seed, step, rank, number))
            signals.append(damaged(self.speech, piece, self.degradation, seed, step, rank, number))
            labels.append(voice * len(self._recordings) + speaker)
        return {"features": self._features(signals), "labels": torch.tensor(labels)}

    def _piece(
        self,
        speaker: int,
        voice: int,
        count: int,
        random: np.random.Generator,
        seed: tuple[int, ...],
    ) -> Signal:
        """Return so many samples of a speaker, recordings joined or repeated where too short."""
        factor = self.config.speeds[voice - 1] if voice else 1.0
        pool, parts, seconds = self._recordings[speaker], list[int](), 0.0
        while seconds < count * factor / _RATE and len(parts) < _MOST_PARTS:
            parts.append(int(pool[int(random.integers(len(pool)))]))
            seconds += self.speech.utterances[parts[-1]].duration or math.inf
        row = Row(tuple(parts), (0.0,) * (len(parts) - 1), ("speaker", *seed))
        signal = self.speech.row(row).signal
        if voice:
            signal = change_speed(signal, factor)
        if len(signal) < count:
            signal = np.tile(signal, -(-count // max(1, len(signal))))
        start = int(random.integers(len(signal) - count + 1))
        return np.asarray(signal[start : start + count], dtype=np.float32)

    def _features(self, signals: list[Signal]) -> Tensor:
        clips = [torch.from_numpy(signal) for signal in signals]
        return seamless_fbank(clips, self.config.model.stride, 80, normalise=False)[0]

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the cross-entropy in nats, and how often the nearest voice is the right one."""
        vectors = self.model(input_features=batch["features"]).embeddings
        loss = self.model.objective(vectors, batch["labels"])
        near = functional.normalize(vectors.detach()) @ functional.normalize(
            self.model.objective.weight.detach(), dim=0
        )
        right = (near.argmax(-1) == batch["labels"]).float().mean()
        return loss, {"accuracy": float(right)}

    def summary(self) -> dict[str, str]:
        """Say what the run reads and trains; see `Objective.summary`."""
        low, high = self.config.crop_s
        trained = sum(one.numel() for one in self.model.parameters() if one.requires_grad)
        return self.speech.summary() | {
            "a micro-step": f"{self.config.batch.max_rows} pieces of {low:g} to {high:g} s",
            "trained": f"x-vector model, {trained:,} parameters, "
            f"{len(self._recordings)} speakers at {1 + len(self.config.speeds)} speeds",
        }

    def _trials(self) -> dict[str, tuple[list[Signal], list[Signal], list[str]]]:
        """Return the pieces of the dev recordings, their degraded copies, and who speaks."""
        count = round(self.config.piece_s * _RATE)
        found = {}
        for name, items in self.speech.dev_items(transcribed=False).items():
            clean, worse, speakers = list[Signal](), list[Signal](), list[str]()
            for signal, item in items:
                for number, piece in enumerate(pieces(signal, count)):
                    clean.append(piece)
                    seed = "dev", item.id or "", number
                    worse.append(damaged(self.speech, piece, self.degradation, *seed))
                    speakers.append(item.speaker or "")
            found[name] = clean, worse, speakers
        return found

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return equal error rates on the dev speakers: by corpus, degraded, and their mean.

        `eer_NAME` pairs recordings of a corpus as they are, `eer_NAME_degraded` each with the
        degraded copies of the others. A corpus without both kinds of pairs has none.
        """
        rates: dict[str, float] = {}
        for name, (clean, worse, speakers) in self._dev.items():
            near, far = ([self._vector(one) for one in side] for side in (clean, worse))
            for key, others in ((name, None), (f"{name}_degraded", far)):
                try:
                    rates[f"eer_{key}"] = verify(near, speakers, others, resamples=0).rate
                except DataError:
                    continue
        return {"eer": float(np.mean(list(rates.values()))) if rates else math.nan} | rates

    def _vector(self, signal: Signal) -> np.ndarray:
        features = self._features([signal]).to(self.device)
        vector = functional.normalize(self.model(input_features=features).embeddings)[0]
        return np.asarray(vector.float().cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write a transformers folder in half precision, with the voices at their own speed."""
        save_xvector(self.model, self.config.model.stride, len(self._recordings), folder)


def _by_speaker(utterances: list[Utterance]) -> list[np.ndarray]:
    """Return the indices of each speaker's recordings, speakers by name."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(utterances):
        if item.speaker:
            found[item.speaker].append(index)
    return [np.array(found[name]) for name in sorted(found)]


def _chances(
    recordings: list[np.ndarray], utterances: list[Utterance], batch: BatchConfig
) -> np.ndarray:
    """Return the chance of each speaker: alike, or shared out by corpus."""
    if not batch.weights:
        return np.full(len(recordings), 1 / len(recordings))
    corpora = [str(utterances[int(each[0])].extra["corpus"]) for each in recordings]
    share = [batch.weights.get(name, 0.0) / corpora.count(name) for name in corpora]
    return np.asarray(share) / sum(share)
