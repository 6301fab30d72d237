"""Many tasks on one frozen encoder: an adapter of each, one for all, or several fused."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.adapters.attach import active
from speechadapt.adapters.composed import weights_noted
from speechadapt.adapters.composite_store import save_composite
from speechadapt.adapters.conditioning import TASK
from speechadapt.adapters.handle import Handle
from speechadapt.audio.augment import Signal
from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.core.files import read_json
from speechadapt.core.seed import derive_seed
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.data.batch import BatchPlan
from speechadapt.data.manifest import Utterance
from speechadapt.data.suite import Suite
from speechadapt.models.adapted import save_adapted
from speechadapt.text.alphabet import Alphabet
from speechadapt.training.adapt.parts import save_whole
from speechadapt.training.adapt.report import DevSets, Reader
from speechadapt.training.adapt.transcribed import REPORT_FILE, Ground, TranscribedObjective
from speechadapt.training.multitask.config import Config as Config
from speechadapt.training.multitask.fusion import (
    attach_fusion,
    begin_from,
    composition_of,
    members,
    routing_loss,
    take_head,
)
from speechadapt.training.multitask.matrix import BASE, Matrix, matrix_lines
from speechadapt.training.objective import Batch
from speechadapt.training.speech import SpeechBatches


def build(config: Config) -> MultitaskObjective:
    """Make the objective of a run."""
    return MultitaskObjective(config)


class MultitaskObjective(TranscribedObjective):
    """A frozen encoder and what is trained on it for several tasks.

    Args:
        config: The run.
        ground: Recordings and states shared with other runs; None reads them.

    Attributes:
        suite: The training utterances by task, of the tasks trained on.
        members: The parts of a fusion that learn with it.
    """

    config: Config

    def __init__(self, config: Config, ground: Ground | None = None) -> None:
        super().__init__(config, ground)
        drawn = {row.id for task in self.suite for row in self.suite.of(task)}
        others = {row.id for row in self.speech.utterances} - drawn
        self.ids = tuple(one for one in self.ids if one not in others)
        self.members = nn.ModuleDict(members(self.encoder, config))
        if config.route_weight:
            self._own = self._own_parts()
        if config.start:
            if self.handle is None:
                raise ConfigError(
                    f"start={config.start} was given, but arm={config.arm} has no adapter to "
                    "begin. Leave it out."
                )
            begin_from(self.handle, Path(config.start).expanduser())

    def _train_what(self) -> Handle | None:
        settings = self.settings
        assert isinstance(settings, Config)
        return attach_fusion(self.encoder, settings) if settings.fuses else super()._train_what()

    def _drawn(self, speech: SpeechBatches) -> SpeechBatches:
        config = self.config
        self.suite = _suite_of(speech.utterances, config)
        shares = self.suite.shares(config.temperature)
        names = sorted({task_of(row) for row in speech.utterances})
        weights = {name: shares.get(name, 0.0) for name in names}
        drawn = copy.copy(speech)
        batch = replace(config.batch, weights=weights)
        drawn.plan = BatchPlan(self._drawable(speech), batch, config.trainer.seed)
        return drawn

    def _drawable(self, speech: SpeechBatches) -> list[Utterance]:
        """Return all utterances at their places, those that are not drawn without a length."""
        kept = {row.id for task in self.suite for row in self.suite.of(task)}
        return [row if row.id in kept else replace(row, duration=0.0) for row in speech.utterances]

    def _held_out(self, ground: Ground) -> Mapping[str, Sequence[tuple[Signal, Utterance]]]:
        wanted = self.config.tasks or tuple(ground.dev)
        return {name: items for name, items in ground.dev.items() if name in wanted}

    def _read_out(self, folder: Path) -> tuple[Alphabet, nn.Linear]:
        if not self.config.head:
            return super()._read_out(folder)
        described, head = take_head(self.encoder, Path(self.config.head).expanduser())
        self.margin_s = described.margin_s
        return described.alphabet, head

    @property
    def what(self) -> str:
        """What is trained, in words."""
        if not self.config.fuses:
            return super().what
        return f"{composition_of(self.config)}, {self.config.learns}"

    def parts(self) -> dict[str, nn.Module]:
        """Return what is trained and the head, by the name its tensors have in a checkpoint."""
        found = {f"part/{name}": module for name, module in self.members.items()}
        return super().parts() | found

    def trained_parameters(self) -> dict[str, int]:
        """Return how many numbers are trained, by part; those of a head that is given are not."""
        return {
            name: sum(one.numel() for one in module.parameters() if one.requires_grad)
            for name, module in self.parts().items()
        }

    def train(self, mode: bool = True) -> MultitaskObjective:
        """Switch to training or evaluation mode; frozen parts stay in the latter."""
        super().train(mode)
        if self.config.fuses and self.config.learns == "two_stage":
            for follower in self.encoder.followers:
                follower.train(mode and follower is self.adapter)
        return self

    @property
    def told(self) -> bool:
        """Whether the adapter is told the task of every row."""
        return self.config.arm == "adapter" and bool(self.config.adapter.get("tasks"))

    def acting(self, tasks: Sequence[str]) -> AbstractContextManager[None]:
        """Say the task of every row to an adapter that is told it.

        Args:
            tasks: One name per row.
        """
        if not self.told or self.handle is None:
            return nullcontext()
        return active(self.encoder, self.handle.name, {TASK: list(tasks)})

    def batch(self, step: int, rank: int) -> Batch:
        """Build features and labels, and each row's task as its place in the suite."""
        repeated = self.config.repeat.batches
        index = step % repeated if repeated else step
        names = list(self.suite)
        rows = self.speech.plan.rows(index, rank)
        tasks = [names.index(task_of(self.speech.utterances[row.parts[0]])) for row in rows]
        return super().batch(step, rank) | {"tasks": torch.tensor(tasks)}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the CTC loss in nats per label, the routing loss and the method's penalty added.

        The figures also hold the routing loss, in nats per row and site.
        """
        weight = self.config.route_weight
        if not weight or self.handle is None:
            return super().forward(batch)
        with weights_noted(self.handle, learns=True) as meter:
            loss, figures = super().forward(batch)
        tasks = batch["tasks"]
        found = routing_loss(meter.sites.values(), self._own.to(tasks.device)[tasks])
        figures["routing"] = float(found.detach())
        return loss + weight * found, figures

    def _own_parts(self) -> Tensor:
        """Return the number of the part that has each task's name, in the order of the suite."""
        places = {name: number for number, name in enumerate(self.config.parts)}
        for name in self.suite:
            if name not in places:
                raise ConfigError(
                    f"route_weight was given, but the task '{name}' has no part of its name among "
                    f"{', '.join(places)}. Name one in parts, or leave the task out with "
                    "tasks=[...]."
                )
        return torch.tensor([places[name] for name in self.suite])

    def _frames(self, batch: Batch) -> tuple[Frames, Lengths]:
        names = list(self.suite)
        with self.acting([names[number] for number in batch["tasks"].tolist()]):
            return super()._frames(batch)

    def read(self, name: str, signals: list[Signal]) -> list[str]:
        """Transcribe recordings of one task with what acts.

        Args:
            name: Always the same for the same recordings: the task, and after a `-` their place.
            signals: Mono samples at the encoder's rate.
        """
        return self._read(name, signals)

    def _read(self, name: str, signals: list[Signal]) -> list[str]:
        task = name.rpartition("-")[0].partition("/")[0]
        with self.acting([task] * len(signals)):
            return super()._read(name, signals)

    def _write(self, folder: Path, scores: Mapping[str, Any]) -> None:
        config = self.config
        if config.arm == "full":
            save_whole(self.encoder, self.head, self.alphabet, self.margin_s, folder)
        elif config.fuses:
            save_composite(
                self.encoder,
                composition_of(config),
                folder,
                bundle=config.learns == "joint",
                training=self.training_facts(),
                scores=scores,
                head=self.head.state_dict(),
                head_config=self.described_head.to_json(),
            )
        else:
            save_adapted(
                folder,
                self.encoder,
                self.handle,
                self.head,
                self.described_head,
                training=self.training_facts(),
                scores=scores,
            )

    def _report(self, folder: Path) -> dict[str, Any]:
        report = super()._report(folder)
        if self.config.fuses and self.config.compare:
            self.eval()
            with torch.no_grad():
                report["matrix"] = self.matrix(self.dev)
        return report

    def matrix(self, sets: DevSets, place: str = "") -> Matrix:
        """Score the base, every part of a fusion and the fusion on every task.

        Args:
            sets: Recordings by task.
            place: What sets them apart from the dev recordings, where they are others.
        """
        selections: dict[str, Any] = {BASE: None} | {name: name for name in self.config.parts}
        assert self.handle is not None  # only a fusion is compared with its parts
        found: Matrix = {}
        for label, selection in (selections | {self.handle.name: self.handle.name}).items():
            with active(self.encoder, selection):
                found[label] = self.task_scores(sets, place)
        return found

    def task_scores(
        self, sets: DevSets, place: str = "", read: Reader | None = None
    ) -> dict[str, dict[str, float]]:
        """Score what acts on every task; `sets.scored` then holds every item.

        Args:
            sets: Recordings by task.
            place: What sets them apart from the dev recordings, where they are others.
            read: Reads them in place of `read`.
        """
        reads = read or self.read
        sets.score(lambda name, signals: reads(_placed(name, place), signals))
        return {task: {"wer": score.wer, "cer": score.cer} for task, score in sets.scored.items()}

    def report(self, folder: Path) -> str:
        """Return the report as lines for people, with the matrix of adapters and tasks."""
        text = super().report(folder)
        if not text:
            return text
        matrix = read_json(folder / REPORT_FILE).get("matrix")
        if matrix is None:
            return text
        rate = self.score
        return "\n".join([text, "", *matrix_lines(matrix, rate)])


def task_of(row: Utterance) -> str:
    """Return the task of an utterance: its corpus, which a manifest's field `task` names."""
    return str(row.extra["corpus"])


def _suite_of(rows: Sequence[Utterance], config: Config) -> Suite:
    tasks: dict[str, list[Utterance]] = {}
    for row in rows:
        tasks.setdefault(task_of(row), []).append(row)
    for name in config.tasks:
        if name not in tasks:
            near = near_misses(name, tasks)
            raise ConfigError(f"tasks names '{name}', which is not there.{near}")
    chosen = {name: tasks[name] for name in config.tasks or tasks}
    if config.shots:
        seed = config.trainer.seed
        chosen = {
            name: sorted(found, key=lambda row: derive_seed("shots", seed, row.id))[: config.shots]
            for name, found in chosen.items()
        }
    return Suite({name: tuple(found) for name, found in chosen.items()})


def _placed(name: str, place: str) -> str:
    task, _, start = name.rpartition("-")
    return f"{task}/{place}-{start}" if place else name
