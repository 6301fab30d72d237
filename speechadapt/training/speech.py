"""Training speech: rows of a batch plan as augmented signals with their transcripts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechadapt.audio.augment import AugmentConfig, Signal, augment_signal, fit_length
from speechadapt.core.errors import ConfigError, DataError, near_misses
from speechadapt.core.seed import generator
from speechadapt.data.audio_cache import AudioCache
from speechadapt.data.batch import BatchConfig, BatchPlan, Row
from speechadapt.data.corpora import pack
from speechadapt.data.manifest import Utterance

_SUMMARY_STEPS = 64


@dataclass(frozen=True)
class DataConfig:
    """Which recordings a run reads.

    Args:
        root: The data pack's folder (`SPEECHADAPT_DATA` where empty).
        train: Corpora whose `train` split is used.
        dev: Corpora whose `dev` split is scored.
        noise: Corpora whose `train` split gives noise.
        noise_labels: Labels taken from a noise corpus that has labels; empty takes all.
        responses: Corpora whose `train` split gives room impulse responses.
        edge_s: Longest silence put before and after a row, in seconds.
        require: Fields a row must have with these values; rows without the field pass.
    """

    root: str = ""
    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    noise_labels: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    edge_s: float = 0.3
    require: Mapping[str, bool] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Say where the data pack, a corpus or a split is missing."""
        try:
            root = data_root(self)
        except ConfigError as error:
            return [str(error)]
        found = [] if self.train else ["data.train names no corpus; name at least one."]
        wanted = {"train": "train", "dev": "dev", "noise": "train", "responses": "train"}
        for key, split in wanted.items():
            for name in getattr(self, key):
                try:
                    pack.load_corpus(root, name, split)
                except DataError as error:
                    found.append(f"data.{key}: {error}")
        return found

    def sources(self) -> dict[str, Path]:
        """Name the manifests that the run reads, by their path under the root."""
        root = data_root(self)
        names = sorted({*self.train, *self.dev, *self.noise, *self.responses})
        return {f"manifests/{name}.jsonl": root / f"manifests/{name}.jsonl" for name in names}


@dataclass(frozen=True)
class SpeechRow:
    """One row before feature extraction.

    Args:
        signal: Augmented mono samples.
        text: Its transcript; empty where unknown.
        random: The row's own random stream, for what follows.
    """

    signal: Signal
    text: str
    random: np.random.Generator


class SpeechBatches:
    """Builds the rows of any step from a data pack.

    Args:
        data: What to read.
        batch: Size and mix of the batches.
        augment: Augmentation of signals and features.
        seed: Of the whole run.
        sample_rate: Hz.
        transcribed: Keep only utterances with a transcript.
    """

    def __init__(
        self,
        data: DataConfig,
        batch: BatchConfig,
        augment: AugmentConfig,
        seed: int,
        sample_rate: int = 16000,
        transcribed: bool = True,
    ) -> None:
        self.root = data_root(data)
        self.data = data
        self.augment = augment
        self.sample_rate = sample_rate
        loaded = pack.load_splits(self.root, data.train, "train")
        self.utterances = [
            item for item in loaded if (item.text or not transcribed) and _meets(item, data.require)
        ]
        self.plan = BatchPlan(self.utterances, batch, seed)
        self._audio = AudioCache(self.utterances, self._read, sample_rate)
        self._noise_items = [
            item
            for item in pack.load_splits(self.root, data.noise, "train")
            if not data.noise_labels
            or item.extra["corpus"] != "esc10"
            or item.extra.get("label") in data.noise_labels
        ]
        self._response_items = pack.load_splits(self.root, data.responses, "train")
        self._noises = self._signals(self._noise_items)
        self._responses = self._signals(self._response_items)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of every recording a batch may hold, noise and rooms included, sorted."""
        items = [*self.utterances, *self._noise_items, *self._response_items]
        return tuple(sorted(item.id for item in items))

    def noise_row(self, seconds: float, random: np.random.Generator) -> Signal:
        """Return a stretch without speech: a noise recording or a faint hiss."""
        count = int(seconds * self.sample_rate)
        if not self._noises or random.random() < 0.3:
            return self._hush(seconds, random)
        noise = self._noises[int(random.integers(len(self._noises)))]
        start = int(random.integers(0, max(1, len(noise) - count)))
        gain = 10 ** (float(random.uniform(-30, 0)) / 20)
        return fit_length(noise[start : start + count], count) * np.float32(gain)

    def rows(self, step: int, rank: int) -> list[SpeechRow]:
        """Return the signals and transcripts of one step on one process."""
        return [self._row(row) for row in self.plan.rows(step, rank)]

    def summary(self) -> dict[str, str]:
        """Say what the corpora hold and how much speech a step takes, the first steps averaged."""
        parts = {
            "train": self.utterances,
            "noise": self._noise_items,
            "responses": self._response_items,
        }
        drawn = [self.plan.rows(step) for step in range(_SUMMARY_STEPS)]
        seconds = sum(self.plan.seconds(row) for rows in drawn for row in rows) / len(drawn)
        rows = sum(map(len, drawn)) / len(drawn)
        return {key: _counted(items) for key, items in parts.items()} | {
            "a micro-step": f"{seconds:.1f} s of speech in {rows:.1f} rows"
        }

    def dev(self) -> dict[str, list[tuple[Signal, str]]]:
        """Return the dev recordings with their transcripts, by corpus."""
        sets: dict[str, list[tuple[Signal, str]]] = {}
        for name in self.data.dev:
            items = [
                item
                for item in pack.load_corpus(self.root, name, "dev")
                if item.text and _meets(item, {"open_grammar_agrees": True})
            ]
            audio = AudioCache(items, self._read, self.sample_rate)
            sets[name] = [(audio[index], item.text or "") for index, item in enumerate(items)]
        return sets

    def _row(self, row: Row) -> SpeechRow:
        random = generator(*row.seed)
        pieces: list[NDArray[np.float32]] = []
        for number, index in enumerate(row.parts):
            pieces.append(self._audio[index])
            if number < len(row.gaps_s):
                pieces.append(self._hush(row.gaps_s[number], random))
        if self.data.edge_s:
            before, after = random.uniform(0, self.data.edge_s, 2)
            pieces = [self._hush(before, random), *pieces, self._hush(after, random)]
        signal = augment_signal(
            np.concatenate(pieces),
            self.sample_rate,
            self.augment,
            random,
            self._noises,
            self._responses,
        )
        return SpeechRow(signal, self.plan.text(row), random)

    def _hush(self, seconds: float, random: np.random.Generator) -> NDArray[np.float32]:
        # Digital zero does not occur in recordings; a faint hiss at a random level does.
        level = 10 ** (float(random.uniform(-80, -50)) / 20)
        count = int(seconds * self.sample_rate)
        return (random.standard_normal(count) * level).astype(np.float32)

    def _read(self, utterance: Utterance) -> tuple[NDArray[np.float32], int]:
        return pack.read_audio(self.root, utterance)

    def _signals(self, items: Sequence[Utterance]) -> list[NDArray[np.float32]]:
        cache = AudioCache(items, self._read, self.sample_rate)
        return [cache[index] for index in range(len(cache))]


def data_root(data: DataConfig) -> Path:
    """Return the data pack's folder.

    Raises:
        ConfigError: Neither `data.root` nor `SPEECHADAPT_DATA` names a folder with manifests.
    """
    import os

    root = data.root or os.environ.get("SPEECHADAPT_DATA", "")
    if not root:
        raise ConfigError("no data root: set data.root=FOLDER or SPEECHADAPT_DATA=FOLDER.")
    if not (Path(root) / "manifests").is_dir():
        raise ConfigError(f"data.root '{root}' has no folder 'manifests'.")
    return Path(root)


def mix_problems(data: DataConfig, batch: BatchConfig) -> list[str]:
    """Say which corpora the batches name that the data does not.

    Args:
        data: What a run reads.
        batch: How its batches are mixed.
    """
    return [
        f"batch.{key} names '{name}', which is not in data.train.{near_misses(name, data.train)}"
        for key in ("weights", "join_corpora")
        for name in getattr(batch, key)
        if name not in data.train
    ]


def _counted(items: Sequence[Utterance]) -> str:
    seconds: defaultdict[str, float] = defaultdict(float)
    count = Counter(str(item.extra["corpus"]) for item in items)
    for item in items:
        seconds[str(item.extra["corpus"])] += item.duration or 0.0
    each = [f"{name} {count[name]} ({seconds[name] / 60:.1f} min)" for name in sorted(count)]
    total = f"{len(items)} items, {sum(seconds.values()) / 60:.1f} min"
    return f"{total}: {', '.join(each)}" if each else total


def _meets(item: Utterance, require: Mapping[str, bool]) -> bool:
    return all(item.extra.get(name, wanted) == wanted for name, wanted in require.items())
