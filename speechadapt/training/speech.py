"""Training speech: rows of a batch plan as augmented signals with their transcripts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechadapt.audio.augment import AugmentConfig, Signal, augment_signal, fit_length
from speechadapt.core.errors import ConfigError, DataError, near_misses
from speechadapt.core.limits import Probability
from speechadapt.core.seed import derive_seed, generator
from speechadapt.data import own
from speechadapt.data.audio_cache import AudioCache
from speechadapt.data.batch import BatchConfig, BatchPlan, Row
from speechadapt.data.corpora import pack
from speechadapt.data.manifest import Utterance

Spell = Callable[[Utterance], str]

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
        held_out: Share of the `train` split, drawn by a hash of the ids, that serves as `dev` and
            is not trained on, in corpora without a `dev` split.
        manifest: One's own recordings (see `data.own`), read in place of `train` and `dev`;
            `held_out` holds out whole speakers where they are known.
    """

    root: str = ""
    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    noise_labels: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    edge_s: float = 0.3
    require: Mapping[str, bool] = field(default_factory=dict)
    held_out: Probability = 0.0
    manifest: str = ""

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora trained on."""
        return (own.corpus_of(self.own_path),) if self.manifest else self.train

    @property
    def own_path(self) -> Path:
        """The manifest of one's own recordings, where there is one."""
        return Path(self.manifest).expanduser()

    def problems(self) -> list[str]:
        """Say where the data pack, a corpus or a split is missing."""
        found = self._own_problems() if self.manifest else []
        keys = ("noise", "responses") if self.manifest else ("train", "dev", "noise", "responses")
        if self.manifest and not (self.noise or self.responses):
            return found
        try:
            root = data_root(self)
        except ConfigError as error:
            also = " Or set data.noise=[] data.responses=[]." if self.manifest else ""
            return [*found, f"{error}{also}"]
        if not self.corpora:
            found.append("data.train names no corpus; name at least one.")
        for key in keys:
            for name in getattr(self, key):
                try:
                    split_rows(root, name, "dev" if key == "dev" else "train", self.held_out)
                except DataError as error:
                    found.append(f"data.{key}: {error}")
        return found

    def _own_problems(self) -> list[str]:
        try:
            rows = own.load_own(self.own_path)
        except DataError as error:
            return [f"data.manifest: {error}"]
        problem = own.split_problem(self.own_path, rows, self.held_out)
        return [problem] if problem else []

    def sources(self) -> dict[str, Path]:
        """Name the manifests that the run reads, by their path under the root."""
        read = () if self.manifest else (*self.train, *self.dev)
        names = sorted({*read, *self.noise, *self.responses})
        root = data_root(self) if names else Path()
        found = {f"manifests/{name}.jsonl": root / f"manifests/{name}.jsonl" for name in names}
        return found | ({"manifest": self.own_path} if self.manifest else {})


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
        spell: Gives the text to train on and to score against; None takes it as it stands.
    """

    def __init__(
        self,
        data: DataConfig,
        batch: BatchConfig,
        augment: AugmentConfig,
        seed: int,
        sample_rate: int = 16000,
        transcribed: bool = True,
        spell: Spell | None = None,
    ) -> None:
        needs_root = not data.manifest or data.noise or data.responses
        self.root = data_root(data) if needs_root else Path()
        self.data = data
        self.augment = augment
        self.sample_rate = sample_rate
        self._spell = spell
        loaded = self._spelt(item for items in self._split("train").values() for item in items)
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

    @property
    def noises(self) -> Sequence[Signal]:
        """Noise recordings at the run's rate."""
        return self._noises

    @property
    def responses(self) -> Sequence[Signal]:
        """Room impulse responses at the run's rate."""
        return self._responses

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
        return [self.row(row) for row in self.plan.rows(step, rank)]

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
        return {
            name: [(signal, item.text or "") for signal, item in items]
            for name, items in self.dev_items().items()
        }

    def dev_items(self, transcribed: bool = True) -> dict[str, list[tuple[Signal, Utterance]]]:
        """Return the dev recordings with all that is known about them, by corpus.

        Args:
            transcribed: Leave out recordings without a transcript.
        """
        sets: dict[str, list[tuple[Signal, Utterance]]] = {}
        for name, rows in self._split("dev").items():
            loaded = self._spelt(rows)
            items = [
                item
                for item in loaded
                if (item.text or not transcribed) and _meets(item, {"open_grammar_agrees": True})
            ]
            audio = AudioCache(items, self._read, self.sample_rate)
            sets[name] = [(audio[index], item) for index, item in enumerate(items)]
        return sets

    def row(self, row: Row) -> SpeechRow:
        """Return the signal and the transcript of one row of a plan.

        Args:
            row: Its parts, and the seed of all that is random about it.
        """
        random = generator(*row.seed)
        pieces: list[NDArray[np.float32]] = []
        for number, index in enumerate(row.parts):
            pieces.append(self._audio[index])
            if number < len(row.gaps_s):
                pieces.append(self._hush(row.gaps_s[number], random))
        if self.data.edge_s:
            before, after = random.uniform(0, self.data.edge_s, 2)
            pieces = [self._hush(before, random), *pieces, self._hush(after, random)]
        signal = self.augmented(np.concatenate(pieces), self.augment, random)
        return SpeechRow(signal, self.plan.text(row), random)

    def augmented(
        self, signal: Signal, augment: AugmentConfig, random: np.random.Generator
    ) -> Signal:
        """Return a signal changed with the run's noises and rooms (see `augment_signal`).

        Args:
            signal: Mono samples.
            augment: Probabilities and ranges.
            random: The only source of randomness.
        """
        rate, noises, rooms = self.sample_rate, self._noises, self._responses
        return augment_signal(signal, rate, augment, random, noises, rooms)

    def _hush(self, seconds: float, random: np.random.Generator) -> NDArray[np.float32]:
        # Digital zero does not occur in recordings; a faint hiss at a random level does.
        level = 10 ** (float(random.uniform(-80, -50)) / 20)
        count = int(seconds * self.sample_rate)
        return (random.standard_normal(count) * level).astype(np.float32)

    def _spelt(self, items: Iterable[Utterance]) -> list[Utterance]:
        spell = self._spell
        if spell is None:
            return list(items)
        return [replace(item, text=spell(item) if item.text else item.text) for item in items]

    def _split(self, split: str) -> dict[str, list[Utterance]]:
        data = self.data
        if data.manifest:
            found: dict[str, list[Utterance]] = {}
            for row in own.own_rows(data.own_path, split, data.held_out):
                found.setdefault(str(row.extra["corpus"]), []).append(row)
            return found
        names = data.dev if split == "dev" else data.train
        return {name: split_rows(self.root, name, split, data.held_out) for name in names}

    def _read(self, utterance: Utterance) -> tuple[NDArray[np.float32], int]:
        if Path(utterance.audio_filepath).is_absolute():  # the pack's lie under its root
            return own.read_own(utterance, self.sample_rate)
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


def split_rows(root: Path, name: str, split: str, held_out: float = 0.0) -> list[Utterance]:
    """Return the rows of a corpus for training or for dev, which never overlap.

    Args:
        root: The data pack's folder.
        name: The corpus.
        split: `train` or `dev`.
        held_out: Share of `train` that serves as `dev` where the corpus has no `dev` split.

    Raises:
        DataError: The corpus is not there, or it has no such rows.
    """
    if not held_out or "dev" in {str(row.extra["split"]) for row in pack.load_corpus(root, name)}:
        return pack.load_corpus(root, name, split)
    rows = [
        row
        for row in pack.load_corpus(root, name, "train")
        if (derive_seed("held out", row.id) < held_out * 2**63) == (split == "dev")
    ]
    if not rows:
        raise DataError(
            f"data.held_out={held_out:g} leaves no {split} rows of the corpus '{name}'. "
            "Take a share further from 0 and 1."
        )
    return rows


def mix_problems(data: DataConfig, batch: BatchConfig) -> list[str]:
    """Say which corpora the batches name that the data does not.

    Args:
        data: What a run reads.
        batch: How its batches are mixed.
    """
    return [
        f"batch.{key} names '{name}', which is not in data.train.{near_misses(name, data.corpora)}"
        for key in ("weights", "join_corpora")
        for name in getattr(batch, key)
        if name not in data.corpora
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
