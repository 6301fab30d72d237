"""What adaptations to transcripts share: inputs, a CTC head, its loss, scores and the report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.audio.augment import Signal
from speechadapt.audio.margin import add_margin
from speechadapt.core.errors import ConfigError
from speechadapt.core.files import atomic_write_json, hash_file, read_json
from speechadapt.core.shapes import Frames, Lengths, Mask, length_mask
from speechadapt.data.manifest import Utterance
from speechadapt.models.adapted import Head
from speechadapt.models.build import margin_of
from speechadapt.text.alphabet import Alphabet
from speechadapt.text.normalise import load_normaliser
from speechadapt.training.adapt.config import TranscribedConfig
from speechadapt.training.adapt.features import FeatureMaker
from speechadapt.training.adapt.frozen_prefix import Reuse, StateCache
from speechadapt.training.adapt.inputs import AdaptInputs, batch_key, row_keys, unit_of
from speechadapt.training.adapt.objective import AdaptedObjective
from speechadapt.training.adapt.parts import check_whole, choose_alphabet, load_base, new_head
from speechadapt.training.adapt.report import DevSets, parameter_facts, report_lines
from speechadapt.training.adapt.reuse import make_reuse
from speechadapt.training.adapt.text import Speller, letters_of
from speechadapt.training.ctc_loss import ctc_per_label
from speechadapt.training.objective import Batch
from speechadapt.training.speech import SpeechBatches

REPORT_FILE = "report.json"
SCORES_FILE = "scores.json"


@dataclass
class Ground:
    """What runs on the same recordings can share, so that it is read and computed once.

    Args:
        speech: The recordings; a run that draws otherwise gives them a plan of its own.
        dev: What is held out, by corpus.
        caches: States of the frozen layers, by how many layers they are of.
    """

    speech: SpeechBatches
    dev: Mapping[str, Sequence[tuple[Signal, Utterance]]]
    caches: dict[int, StateCache] = field(default_factory=dict)


def read_ground(config: TranscribedConfig, sample_rate: int) -> Ground:
    """Read the recordings of a run.

    Args:
        config: The run.
        sample_rate: Of the encoder, in Hz.
    """
    spell = Speller(config.normaliser, config.language)
    speech = SpeechBatches(
        config.data,
        config.batch,
        config.augment,
        config.trainer.seed,
        sample_rate,
        spell=spell,
    )
    return Ground(speech, speech.dev_items())


class TranscribedObjective(AdaptedObjective):
    """A frozen encoder, what is trained on it, and a CTC head that is scored on transcripts.

    A task adds how it is saved, and changes what it does otherwise.

    Args:
        config: The run.
        ground: Recordings and states shared with other runs; None reads them.

    Attributes:
        speech: The recordings and the plan by which batches are drawn.
        head: The linear map from frames to symbols.
        reuse: Keeps the states of the frozen layers; None where nothing is kept.
        dev: The dev sets.
    """

    head: nn.Linear

    def __init__(self, config: TranscribedConfig, ground: Ground | None = None) -> None:
        encoder, folder = load_base(config.base, config.padding)
        window_s = encoder.window_s
        if window_s is not None and config.batch.max_s > window_s:
            raise ConfigError(
                f"batch.max_s={config.batch.max_s:g} lets in recordings longer than the window of "
                f"{encoder.family}, {window_s:g} s. Set batch.max_s={window_s:g} or less."
            )
        if config.arm == "full":
            check_whole(encoder)
        torch.manual_seed(config.trainer.seed)
        super().__init__(encoder, config)
        self.config = config
        found = ground or read_ground(config, encoder.sample_rate)
        self.speech = self._drawn(found.speech)
        self.ids = self.speech.ids
        self.language = Speller(config.normaliser, config.language).language_of(
            self.speech.utterances
        )
        headline = load_normaliser(config.normaliser, self.language).headline
        self.score = headline if config.score == "headline" else config.score
        self.margin_s = margin_of(folder) if config.margin_s is None else config.margin_s
        self.alphabet, self.head = self._read_out(folder)
        self.dropout = nn.Dropout(config.head_dropout)
        self.reuse = self._kept(found)
        self.inputs = AdaptInputs(
            self.speech,
            FeatureMaker(encoder, config.augment, 0.0 if config.data.edge_s else self.margin_s),
            self.alphabet,
            config.repeat,
            None
            if self.reuse is None
            else unit_of(config.repeat, config.data, config.batch, config.augment),
            config.trainer.seed,
        )
        self.dev = DevSets(self._held_out(found), config.normaliser, config.language or None)

    def _drawn(self, speech: SpeechBatches) -> SpeechBatches:
        """Return the recordings as this run draws them."""
        return speech

    def _held_out(self, ground: Ground) -> Mapping[str, Sequence[tuple[Signal, Utterance]]]:
        """Return what this run is scored on."""
        return ground.dev

    def _read_out(self, folder: Path) -> tuple[Alphabet, nn.Linear]:
        """Return the symbols and the head, of which the base in a folder may have some."""
        texts = [item.text or "" for item in self.speech.utterances]
        alphabet = choose_alphabet(self.config.alphabet, folder, letters_of(texts))
        return alphabet, new_head(self.encoder.dim, alphabet, folder, self.config.keep_head)

    def _kept(self, ground: Ground) -> Reuse | None:
        reuse = make_reuse(self.encoder, self.handle, self.config.prefix, self._facts())
        if reuse is not None and self.config.prefix.cache == "memory":
            reuse.cache = ground.caches.setdefault(reuse.prefix.depth, reuse.cache)
        return reuse

    def _facts(self) -> dict[str, Any]:
        """Say what the inputs depend on."""
        config, speech = self.config, self.speech
        facts: dict[str, Any] = {
            "data": {name: hash_file(path) for name, path in sorted(config.data.sources().items())},
            "utterances": [item.id for item in speech.utterances],
            "read": [config.data.edge_s, config.data.noise_labels, config.data.held_out],
            "augment": asdict(config.augment),
            "repeat": asdict(config.repeat),
            "margin_s": self.margin_s,
            "padding": config.padding,
            "precision": config.trainer.precision,
        }
        if config.repeat.batches:
            facts["batch"] = [asdict(config.batch), config.trainer.seed]
        return facts

    def batch(self, step: int, rank: int) -> Batch:
        """Build features, or keys of what is kept of them, and labels; see `Objective.batch`."""
        kept = (lambda key: False) if self.reuse is None else self.reuse.cache.__contains__
        return self.inputs.batch(step, rank, kept)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the CTC loss in nats per label, the method's penalty added.

        The figures are the share of rows too short for their text, and the penalty.
        """
        if self.training:
            self.meter.start()
        scores, lengths = self._scores(batch)
        loss, fits = ctc_per_label(
            scores,
            lengths,
            batch["labels"],
            batch["label_lengths"],
            self.alphabet.blank_id,
        )
        figures = {"too_short": float((~fits).float().mean())}
        loss = self.with_agreement(loss, scores, lambda: self._again(batch), figures)
        return self.with_penalty(loss, figures), figures

    def _scores(self, batch: Batch) -> tuple[Tensor, Lengths]:
        frames, lengths = self._frames(batch)
        return self.head(self.dropout(frames)), lengths

    def _again(self, batch: Batch) -> tuple[Tensor, Mask]:
        scores, lengths = self._scores(batch)
        return scores, length_mask(lengths, scores.shape[1])

    def _frames(self, batch: Batch) -> tuple[Frames, Lengths]:
        if self.reuse is None:
            frames, lengths = self.encoder(batch["features"], batch["lengths"])
            return frames, lengths
        if "key" in batch:
            name = batch_key(batch["key"])
            return self.reuse.whole(name, batch.get("features"), batch.get("lengths"))
        fresh = {
            number: (batch[f"features.{number}"], batch[f"lengths.{number}"])
            for number in range(len(batch["keys"]))
            if f"features.{number}" in batch
        }
        return self.reuse.each(row_keys(batch["keys"]), fresh)

    def summary(self) -> dict[str, str]:
        """Say what the run reads and trains; see `Objective.summary`."""
        found = self.speech.summary()
        found["trained"] = self.what
        letters = "".join(self.alphabet.symbols[2:])
        found["alphabet"] = f"{len(self.alphabet)} symbols: {letters}"
        if self.reuse is not None:
            found["frozen prefix"] = f"{self.reuse.prefix.depth} layers, {self.config.prefix.cache}"
        return found

    def evaluate(self) -> dict[str, float]:
        """Score greedy decoding on the dev sets: WER and CER, and each corpus's headline."""
        return self.dev.score(self._read)

    def _read(self, name: str, signals: list[Signal]) -> list[str]:
        rate = self.speech.sample_rate
        padded = [add_margin(signal, rate, self.margin_s) for signal in signals]
        clips = [torch.from_numpy(signal).to(self.device) for signal in padded]
        if self.reuse is None:
            frames, lengths = self.encoder.encode(clips)
        else:
            features: Tensor | None = None
            counts: Tensor | None = None
            if f"dev-{name}" not in self.reuse.cache:
                features, counts = self.encoder.extract(clips)
                features, counts = features.to(self.device), counts.to(self.device)
            frames, lengths = self.reuse.whole(f"dev-{name}", features, counts)
        return self._written(frames, lengths)

    def _written(self, frames: Frames, lengths: Lengths) -> list[str]:
        best = self.head(frames).argmax(-1).cpu()
        return [
            self.alphabet.decode(row[:length].tolist())
            for row, length in zip(best, lengths.tolist(), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write what was trained with its head, and its dev scores."""
        if not self.steps and (folder / SCORES_FILE).is_file():
            return  # the run was finished before, and this is what it saved
        if not self.dev.scored:
            self.eval()
            with torch.no_grad():
                self.evaluate()
        scores = self.dev.details()
        self._write(folder, scores)
        atomic_write_json(folder / SCORES_FILE, scores)

    @abstractmethod
    def _write(self, folder: Path, scores: Mapping[str, Any]) -> None:
        """Write what was trained with its head."""

    @property
    def described_head(self) -> Head:
        """What reads the head."""
        return Head(self.alphabet, self.margin_s, self.config.padding, self.language)

    def training_facts(self) -> dict[str, Any]:
        """Say what it was trained on and how, as JSON values."""
        config = self.config
        return {
            "data": self.speech.summary()["train"],
            "steps": self.steps,
            "learning_rate": config.adapter_rate or config.trainer.learning_rate,
            "seed": config.trainer.seed,
        }

    def finish(self, folder: Path) -> None:
        """Write `report.json`: parameters, memory, time, and the scores with intervals."""
        path = folder / REPORT_FILE
        if not self.meter.seconds and path.is_file():
            return  # the run was finished before
        atomic_write_json(path, self._report(folder))

    def _report(self, folder: Path) -> dict[str, Any]:
        whole = sum(part.numel() for part in self.encoder.model.parameters())
        saved = {name: folder / name for name in ("best", "last")}
        return {
            "what": self.what,
            "method": self.config.method if self.config.arm == "adapter" else None,
            "arm": self.config.arm,
            "parameters": parameter_facts(self.trained_parameters(), whole),
            **self.meter.facts(),
            "figures": {} if self.handle is None else self.handle.figures(),
            "prefix": self._prefix_facts(),
            "file_bytes": sum(one.stat().st_size for one in saved["last"].glob("*.safetensors")),
            "scores": {
                name: read_json(place / SCORES_FILE)
                for name, place in saved.items()
                if (place / SCORES_FILE).is_file()
            },
        }

    def _prefix_facts(self) -> dict[str, Any] | None:
        if self.reuse is None:
            return None
        entries, size = self.reuse.cache.size()
        return {
            "layers": self.reuse.prefix.depth,
            "entries": entries,
            "bytes": size,
            "seconds": self.reuse.seconds,
        }

    def report(self, folder: Path) -> str:
        """Return the report as lines for people."""
        path = folder / REPORT_FILE
        return report_lines(read_json(path)) if path.is_file() else ""
