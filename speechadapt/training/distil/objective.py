"""An adapter that learns from a frozen teacher: what distillation and bridges have in common.

The teacher hears the clip as the models were made to hear it and with no adapter active; the
student hears it through the adapter. Only the adapter is part of the objective, so it alone is in
a checkpoint and it alone reaches the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from speechadapt.adapters import store
from speechadapt.adapters.attach import active
from speechadapt.audio.augment import Signal
from speechadapt.audio.margin import add_margin
from speechadapt.core.files import atomic_write_json, read_json
from speechadapt.data.manifest import Utterance
from speechadapt.encoders.base import Encoder
from speechadapt.training.adapt.features import FeatureMaker
from speechadapt.training.adapt.report import DevSets, Meter, parameter_facts, report_lines
from speechadapt.training.distil.config import (
    Taught,
    TaughtConfig,
    check_window,
    choose_score,
    make_reader,
)
from speechadapt.training.distil.inputs import PairMaker
from speechadapt.training.distil.loss import (
    FrameLoss,
    Heard,
    divergence,
    hear,
)
from speechadapt.training.distil.models import IGNORED
from speechadapt.training.objective import Batch, Objective
from speechadapt.training.speech import SpeechBatches

REPORT_FILE = "report.json"
SCORES_FILE = "scores.json"
_ROWS = 16  # dev recordings heard at a time

Dev = dict[str, list[tuple[Signal, Utterance]]]


class TaughtObjective(Objective):
    """The errors of an adapter's frames, layers and tokens against a frozen teacher's.

    Args:
        config: The run.
        models: Its models.

    Raises:
        ConfigError: The decoder that a weight or the score needs is not there.
    """

    def __init__(self, config: TaughtConfig, models: Taught) -> None:
        super().__init__()
        self.config = config
        self.models = models
        self.handle = models.handle
        self.adapter = models.handle.module
        student, teacher = models.student, models.teacher
        check_window(config, student, teacher)
        self.speech = SpeechBatches(
            config.data,
            config.batch,
            config.augment,
            config.trainer.seed,
            student.sample_rate,
            transcribed=config.text_weight > 0,
        )
        self.ids = self.speech.ids
        margin_s = 0.0 if config.data.edge_s else models.margin_s
        self.pairs = PairMaker(
            self.speech,
            FeatureMaker(models.handle.encoder, config.augment, margin_s),
            FeatureMaker(teacher, config.augment, margin_s),
            models.degrade,
        )
        self.frame_loss = FrameLoss(config.frames)
        self.reader = make_reader(config, models.decoder)
        self.score = choose_score(config, models.decoder)
        self.clean, self.heard = self._dev()
        self.sets = self._sets(self.heard)
        self.meter = Meter()
        self.figures: dict[str, float] = {}
        self._steps = 0

    def _dev(self) -> tuple[Dev, Dev]:
        """Return the dev recordings as the teacher and as the student hear them."""
        most = self.config.dev_items
        found = self.speech.dev_items(transcribed=False)
        clean = {name: items[:: max(1, len(items) // most)] for name, items in found.items()}
        heard = {
            name: [(self.pairs.degraded(signal, item), item) for signal, item in items]
            for name, items in clean.items()
        }
        return clean, heard

    def _sets(self, items: Dev) -> DevSets:
        written = {name: [one for one in rows if one[1].text] for name, rows in items.items()}
        return DevSets(written, self.config.normaliser, self.config.language or None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TaughtObjective:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        models = self.models
        # frozen, and no children: they move along and are in no checkpoint
        for part in (models.student, models.teacher, models.decoder, models.teacher_decoder):
            if part is not None:
                part._apply(fn, recurse)
        return self

    def batch(self, step: int, rank: int) -> Batch:
        """Build what student and teacher hear, and the transcripts; see `Objective.batch`."""
        rows = self.speech.rows(step, rank)
        made = self.pairs(rows, step)
        return made | ({} if self.reader is None else self.reader.batch([r.text for r in rows]))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the weighted sum of all terms, and each alone."""
        if self.training:
            self.meter.start()
        student, teacher = self._hear(batch)
        loss, figures = self.frame_loss(student, teacher)
        if self.reader is not None:
            text, more = self._text_loss(batch, student, teacher)
            loss, figures = loss + text, figures | more
        penalty = self.handle.penalty()
        if penalty is not None:
            loss = loss + penalty
            figures["penalty"] = float(penalty.detach())
        return loss, figures

    def _hear(self, batch: Batch) -> tuple[Heard, Heard]:
        models, encoder = self.models, self.handle.encoder
        features, lengths = batch["teacher_features"], batch["teacher_lengths"]
        # the teacher may share modules, and the hooks on them, with the student
        with torch.no_grad(), active(encoder, None):
            teacher = hear(models.teacher, features, lengths, models.paths)
        with active(encoder, self.handle.name):
            student = hear(models.student, batch["features"], batch["lengths"], models.paths)
        return student, teacher

    def _text_loss(
        self, batch: Batch, student: Heard, teacher: Heard
    ) -> tuple[Tensor, dict[str, float]]:
        config, reader = self.config, self.reader
        assert reader is not None
        inputs, labels = batch["inputs"], batch["labels"]
        known = labels != IGNORED
        logits = reader.logits(student.frames, student.lengths, inputs, self.models.padding)
        loss, figures = logits.new_zeros(()), dict[str, float]()
        if config.decoder_weight:
            with torch.no_grad():
                wanted = reader.logits(teacher.frames, teacher.lengths, inputs, "full")
            away = divergence(logits, wanted, known)
            loss = loss + config.decoder_weight * away
            figures["divergence"] = float(away.detach())
        if config.text_weight:
            chosen = logits[known]
            text = functional.cross_entropy(chosen, labels[known], reduction="sum")
            text = text / max(1, len(chosen))
            loss = loss + config.text_weight * text
            figures["text"] = float(text.detach())
        return loss, figures

    def begin(self) -> None:
        """Let the method look at the loss of the first batches."""
        self.eval()
        self.handle.begin(self.batch_loss)

    def after_step(self, step: int, seconds: float) -> None:
        """Let the method act; count the step."""
        self._steps = step
        self.meter.step(seconds)
        self.handle.after_step(step)

    def summary(self) -> dict[str, str]:
        """Say what the run reads and trains; see `Objective.summary`."""
        found = self.speech.summary()
        found["trained"] = (
            f"adapter {self.handle.method_name}, {self.handle.num_parameters():,} parameters at "
            f"{len(self.handle.sites) + len(self.handle.norm_sites)} sites"
        )
        return found

    def evaluate(self) -> dict[str, float]:
        """Score frames on all dev recordings, and texts where a decoder reads them."""
        found = self.frame_scores(self.handle.name)
        self.figures = dict(found)
        if self.models.decoder is not None:
            found |= self.sets.score(self.read(self.handle.name))
        return found

    @torch.no_grad()
    def frame_scores(self, name: str | None) -> dict[str, float]:
        """Return `loss`, the error of frames and layers on the dev recordings, and its parts.

        Args:
            name: The adapter that is active in the student; None for none.
        """
        total: dict[str, float] = {}
        count = 0
        for corpus, items in self.clean.items():
            order = sorted(range(len(items)), key=lambda index: len(items[index][0]))
            for start in range(0, len(order), _ROWS):
                chosen = order[start : start + _ROWS]
                teacher = self._listen(self.models.teacher, self.clean[corpus], chosen, None)
                student = self._listen(self.models.student, self.heard[corpus], chosen, name)
                loss, parts = self.frame_loss(student, teacher)
                for key, value in {"loss": float(loss), **parts}.items():
                    total[key] = total.get(key, 0.0) + value * len(chosen)
                count += len(chosen)
        return {key: value / count for key, value in total.items()}

    def _listen(
        self,
        encoder: Encoder,
        items: Sequence[tuple[Signal, Utterance]],
        chosen: Sequence[int],
        name: str | None,
    ) -> Heard:
        clips = [self._clip(encoder, items[index][0]) for index in chosen]
        features, lengths = encoder.extract(clips)
        features, lengths = features.to(self.device), lengths.to(self.device)
        with active(self.handle.encoder, name):
            return hear(encoder, features, lengths, self.models.paths)

    def _clip(self, encoder: Encoder, signal: Signal) -> Tensor:
        padded = add_margin(signal, self.speech.sample_rate, self.models.margin_s)
        most = None if encoder.window_s is None else round(encoder.window_s * encoder.sample_rate)
        return torch.from_numpy(padded[:most]).to(self.device)

    def read(
        self, name: str | None, teacher: bool = False
    ) -> Callable[[str, list[Signal]], list[str]]:
        """Return what writes texts of signals, as `DevSets.score` takes it.

        Args:
            name: The adapter that is active; None for none.
            teacher: Read by the teacher's ears.
        """
        models = self.models
        encoder = models.teacher if teacher else models.student
        decoder = models.teacher_decoder if teacher else models.decoder
        assert decoder is not None

        def texts(_: str, signals: list[Signal]) -> list[str]:
            clips = [self._clip(encoder, signal) for signal in signals]
            with torch.no_grad(), active(self.handle.encoder, name):
                frames, lengths = encoder.encode(clips)
            found = decoder.decode(frames, lengths, encoder.frame_rate)
            return [hypothesis.text for hypothesis in found]

        return texts

    def save(self, folder: Path) -> None:
        """Write the adapter as `adapters.store` does, with its card."""
        if not self.figures:
            self.eval()
            with torch.no_grad():
                self.evaluate()
        scores = self.sets.details()
        more = self.extras()
        store.save(
            self.handle,
            folder,
            training=self._training(),
            scores=scores or self.figures,
            head=None if more is None else {},
            head_config=more,
        )
        atomic_write_json(folder / SCORES_FILE, scores)

    def extras(self) -> dict[str, Any] | None:
        """Return what else a reader of the saved adapter must know; None where nothing."""
        return None

    def _training(self) -> dict[str, Any]:
        trainer = self.config.trainer
        padding = getattr(self.models.student, "padding", None)
        return ({} if padding is None else {"padding": padding}) | {
            "data": self.speech.summary()["train"],
            "steps": self._steps or trainer.steps,
            "learning_rate": trainer.learning_rate,
            "seed": trainer.seed,
            "frame_error": self.figures,
        }

    def reference_scores(self) -> dict[str, Any]:
        """Return the dev scores to compare with, by what they are of: the teacher's."""
        if self.models.teacher_decoder is None:
            return {}
        sets = self._sets(self.clean)
        sets.score(self.read(None, teacher=True))
        return {"teacher": sets.details()}

    def finish(self, folder: Path) -> None:
        """Write `report.json`: parameters, memory, time, and the scores with intervals."""
        path = folder / REPORT_FILE
        if not self.meter.seconds and path.is_file():
            return  # the run was finished before
        self.eval()
        saved = {name: folder / name for name in ("best", "last")}
        whole = sum(part.numel() for part in self.handle.encoder.model.parameters())
        written = {
            name: read_json(place / SCORES_FILE)
            for name, place in saved.items()
            if (place / SCORES_FILE).is_file()
        }
        report = {
            "what": f"adapter {self.handle.method_name}",
            "method": self.handle.method_name,
            "parameters": parameter_facts({"adapter": self.handle.num_parameters()}, whole),
            **self.meter.facts(),
            "prefix": None,
            "file_bytes": (saved["last"] / store.WEIGHTS).stat().st_size,
            "frame_error": {"last": self.figures} | self.reference_frames(),
            "scores": self.reference_scores() | written,
        }
        atomic_write_json(path, report)

    def reference_frames(self) -> dict[str, dict[str, float]]:
        """Return frame errors to compare with, by what they are of."""
        return {}

    def report(self, folder: Path) -> str:
        """Return the report as lines for people."""
        path = folder / REPORT_FILE
        if not path.is_file():
            return ""
        report = read_json(path)
        lines = [
            f"{name}: dev frame error {figures['loss']:.4f}"
            for name, figures in report["frame_error"].items()
        ]
        return "\n".join([report_lines(report), *lines])
