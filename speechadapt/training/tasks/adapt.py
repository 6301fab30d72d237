"""Adaptation of a frozen encoder to new speech: an adapter and a CTC head, from transcripts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from speechadapt.adapters.attach import attach
from speechadapt.adapters.handle import Handle
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
from speechadapt.training.adapt_report import DevSets, Meter, parameter_facts, report_lines
from speechadapt.training.adapt_reuse import make_reuse
from speechadapt.training.adapt_text import Speller, letters_of
from speechadapt.training.ctc_loss import ctc_per_label
from speechadapt.training.objective import Batch, Group, Objective
from speechadapt.training.speech import SpeechBatches

REPORT_FILE = "report.json"
SCORES_FILE = "scores.json"
_WHAT = {"full": "full fine-tuning", "head": "head alone"}


def build(config: Config) -> AdaptObjective:
    """Make the objective of a run."""
    return AdaptObjective(config)


class AdaptObjective(Objective):
    """A frozen encoder with an adapter and a CTC head; or one of the arms to compare with.

    Its state is what is trained: the base's weights are in no checkpoint.

    Args:
        config: The run.

    Attributes:
        encoder: The encoder.
        handle: The attachment; None in the other arms.
        head: The linear map from frames to symbols.
        reuse: Keeps the states of the frozen layers; None where nothing is kept.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder, folder = load_base(config.base, config.padding)
        window_s = self.encoder.window_s
        if window_s is not None and config.batch.max_s > window_s:
            raise ConfigError(
                f"batch.max_s={config.batch.max_s:g} lets in recordings longer than the window of "
                f"{self.encoder.family}, {window_s:g} s. Set batch.max_s={window_s:g} or less."
            )
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
        torch.manual_seed(config.trainer.seed)
        self.handle = self._train_what()
        self.adapter = None if self.handle is None else self.handle.module
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
        self.meter = Meter()
        self._steps = 0
        self._recomputed: list[nn.Module] = []

    def _train_what(self) -> Handle | None:
        config = self.config
        if config.arm == "adapter":
            return attach(
                self.encoder,
                config.method,
                config=config.adapter,
                roles=config.roles or None,
                train_norms=config.train_norms,
            )
        if config.arm == "full":
            check_whole(self.encoder)
            self.encoder.model.requires_grad_(True)
            self.skips_parameters = True  # layer drop, and what masks inputs in pre-training
        return None

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

    def _parts(self) -> dict[str, nn.Module]:
        """Return what is trained, by the name its tensors have in a checkpoint."""
        parts: dict[str, nn.Module] = {"head": self.head}
        if self.adapter is not None:
            parts["adapter"] = self.adapter
        if self.config.arm == "full":
            parts["encoder"] = self.encoder.model
        return parts

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the tensors of what is trained."""
        return {
            f"{part}.{name}": value
            for part, module in self._parts().items()
            for name, value in module.state_dict().items()
        }

    def load_state_dict(self, state_dict, strict=True, assign=False):  # type: ignore[no-untyped-def]
        """Load tensors named as `state_dict` names them."""
        for part, module in self._parts().items():
            start = f"{part}."
            own = {
                name.removeprefix(start): value
                for name, value in state_dict.items()
                if name.startswith(start)
            }
            module.load_state_dict(own, strict=strict, assign=assign)

    def groups(self) -> dict[str, Group]:
        """Return rates and decays of adapter, norms and head; see `Objective.groups`."""
        config, usual = self.config, self.config.trainer.learning_rate
        adapter = (config.adapter_rate or usual) / usual
        head = (config.head_rate or usual) / usual
        return {
            "adapter.": Group(adapter, config.adapter_decay),
            "adapter.norms.": Group(adapter, 0.0),
            "head.": Group(head, config.head_decay),
        }

    def train(self, mode: bool = True) -> AdaptObjective:
        """Switch to training or evaluation mode; frozen layers stay in the latter."""
        super().train(mode)
        if self.config.arm != "full":
            self.encoder.model.eval()
            for layer in self._recomputed:
                layer.training = mode  # of the layer alone: its own parts drop nothing
        return self

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass; see `Objective.checkpoint_gradients`.

        Raises:
            ConfigError: Frozen layers would drop activations when recomputed.
        """
        super().checkpoint_gradients()
        if self.config.arm == "full":
            return
        layers = [one for one in self.modules() if isinstance(one, GradientCheckpointingLayer)]
        for layer in layers:
            rate = getattr(layer, "dropout", 0.0)
            if isinstance(rate, float) and rate:
                raise ConfigError(
                    f"trainer.gradient_checkpointing was asked for, but the frozen layers of "
                    f"{self.encoder.family} would drop {rate:g} of their values. Save the base "
                    "with dropout 0 in its config.json."
                )
        self._recomputed = list(layers)

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
        penalty = None if self.handle is None else self.handle.penalty()
        if penalty is not None:
            loss = loss + penalty
            figures["penalty"] = float(penalty.detach())
        return loss, figures

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

    def after_step(self, step: int, seconds: float) -> None:
        """Let the method act; count the step."""
        self._steps = step
        self.meter.step(seconds)
        if self.handle is not None:
            self.handle.after_step(step)

    def summary(self) -> dict[str, str]:
        """Say what the run reads and trains; see `Objective.summary`."""
        found = self.speech.summary()
        found["trained"] = self._what()
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
        if not self._steps and (folder / SCORES_FILE).is_file():
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
            "steps": self._steps,
            "learning_rate": config.adapter_rate or config.trainer.learning_rate,
            "seed": config.trainer.seed,
        }

    def _what(self) -> str:
        return _WHAT.get(self.config.arm, f"adapter {self.config.method}")

    def finish(self, folder: Path) -> None:
        """Write `report.json`: parameters, memory, time, and the scores with intervals."""
        path = folder / REPORT_FILE
        if not self.meter.seconds and path.is_file():
            return  # the run was finished before
        trained = {
            name: sum(part.numel() for part in module.parameters())
            for name, module in self._parts().items()
        }
        whole = sum(part.numel() for part in self.encoder.model.parameters())
        saved = {name: folder / name for name in ("best", "last")}
        report = {
            "what": self._what(),
            "method": self.config.method if self.config.arm == "adapter" else None,
            "arm": self.config.arm,
            "parameters": parameter_facts(trained, whole),
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
