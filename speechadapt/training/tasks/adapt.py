"""Adaptation of a frozen encoder to new speech: an adapter and a CTC head, from transcripts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.audio.augment import Signal
from speechadapt.audio.margin import add_margin
from speechadapt.core.errors import ConfigError
from speechadapt.core.files import atomic_write_json, hash_file, read_json
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.models.adapted import Head, save_adapted
from speechadapt.models.build import margin_of
from speechadapt.text.normalise import load_normaliser
from speechadapt.training.adapt_config import Config as Config
from speechadapt.training.adapt_features import FeatureMaker
from speechadapt.training.adapt_inputs import AdaptInputs, batch_key, row_keys, unit_of
from speechadapt.training.adapt_parts import (
    check_whole,
    choose_alphabet,
    load_base,
    new_head,
    save_whole,
)
from speechadapt.training.adapt_report import DevSets, parameter_facts, report_lines
from speechadapt.training.adapt_reuse import make_reuse
from speechadapt.training.adapt_text import Speller, letters_of
from speechadapt.training.adapted import AdaptedObjective
from speechadapt.training.ctc_loss import ctc_per_label
from speechadapt.training.objective import Batch
from speechadapt.training.speech import SpeechBatches

REPORT_FILE = "report.json"
SCORES_FILE = "scores.json"


def build(config: Config) -> AdaptObjective:
    """Make the objective of a run."""
    return AdaptObjective(config)


class AdaptObjective(AdaptedObjective):
    """A frozen encoder with an adapter and a CTC head; or one of the arms to compare with.

    Args:
        config: The run.

    Attributes:
        head: The linear map from frames to symbols.
        reuse: Keeps the states of the frozen layers; None where nothing is kept.
    """

    head: nn.Linear

    def __init__(self, config: Config) -> None:
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
        spell = Speller(config.normaliser, config.language)
        self.speech = SpeechBatches(
            config.data,
            config.batch,
            config.augment,
            config.trainer.seed,
            self.encoder.sample_rate,
            spell=spell,
        )
        self.ids = self.speech.ids
        self.language = spell.language_of(self.speech.utterances)
        headline = load_normaliser(config.normaliser, self.language).headline
        self.score = headline if config.score == "headline" else config.score
        texts = [item.text or "" for item in self.speech.utterances]
        self.alphabet = choose_alphabet(config.alphabet, folder, letters_of(texts))
        self.margin_s = margin_of(folder) if config.margin_s is None else config.margin_s
        self.head = new_head(self.encoder.dim, self.alphabet, folder, config.keep_head)
        self.dropout = nn.Dropout(config.head_dropout)
        margin_s = 0.0 if config.data.edge_s else self.margin_s
        self.reuse = make_reuse(self.encoder, self.handle, config.prefix, self._facts())
        unit = unit_of(config.repeat, config.data, config.batch, config.augment)
        self.inputs = AdaptInputs(
            self.speech,
            FeatureMaker(self.encoder, config.augment, margin_s),
            self.alphabet,
            config.repeat,
            None if self.reuse is None else unit,
            config.trainer.seed,
        )
        self.dev = DevSets(self.speech.dev_items(), config.normaliser, config.language or None)

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
        frames, lengths = self._frames(batch)
        loss, fits = ctc_per_label(
            self.head(self.dropout(frames)),
            lengths,
            batch["labels"],
            batch["label_lengths"],
            self.alphabet.blank_id,
        )
        figures = {"too_short": float((~fits).float().mean())}
        return self.with_penalty(loss, figures), figures

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
        best = self.head(frames).argmax(-1).cpu()
        return [
            self.alphabet.decode(row[:length].tolist())
            for row, length in zip(best, lengths.tolist(), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the adapter with its head, the head alone, or the whole model."""
        if not self.steps and (folder / SCORES_FILE).is_file():
            return  # the run was finished before, and this is what it saved
        if not self.dev.scored:
            self.eval()
            with torch.no_grad():
                self.evaluate()
        scores = self.dev.details()
        if self.config.arm == "full":
            save_whole(self.encoder, self.head, self.alphabet, self.margin_s, folder)
        else:
            described = Head(self.alphabet, self.margin_s, self.config.padding, self.language)
            save_adapted(
                folder,
                self.encoder,
                self.handle,
                self.head,
                described,
                training=self._training(),
                scores=scores,
            )
        atomic_write_json(folder / SCORES_FILE, scores)

    def _training(self) -> dict[str, Any]:
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
        whole = sum(part.numel() for part in self.encoder.model.parameters())
        saved = {name: folder / name for name in ("best", "last")}
        report = {
            "what": self.what,
            "method": self.config.method if self.config.arm == "adapter" else None,
            "arm": self.config.arm,
            "parameters": parameter_facts(self.trained_parameters(), whole),
            **self.meter.facts(),
            "prefix": self._prefix_facts(),
            "file_bytes": sum(one.stat().st_size for one in saved["last"].glob("*.safetensors")),
            "scores": {
                name: read_json(place / SCORES_FILE)
                for name, place in saved.items()
                if (place / SCORES_FILE).is_file()
            },
        }
        atomic_write_json(path, report)

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
