"""Adaptation to transcripts of rows that are told something: who, when, or which words to expect.

`tell=enrolment` and `tell=activity` mix two speakers' recordings and ask for what the first one
says; `tell=words` gives lists of words of which some are said.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speechadapt.adapters.attach import active
from speechadapt.audio.augment import Signal
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.data.batch import BatchPlan
from speechadapt.data.manifest import Utterance
from speechadapt.metrics.hot_words import score_hot_words
from speechadapt.metrics.wer import Pair, score_pairs
from speechadapt.models.adapted import save_adapted
from speechadapt.training.adapt.conditions import (
    CONDITION,
    MixConfig,
    Tell,
    Teller,
    Told,
    WordsConfig,
    conditions_of,
    tensors_of,
)
from speechadapt.training.adapt.config import TranscribedConfig
from speechadapt.training.adapt.transcribed import Ground, TranscribedObjective
from speechadapt.training.objective import Batch
from speechadapt.training.speech import SpeechBatches


@dataclass(frozen=True)
class Config(TranscribedConfig):
    """Everything a conditioned adaptation is made of.

    Args:
        method: The adapter method; reads what is told.
        tell: What is told: an `enrolment` of the speaker to be heard, the `activity` of that
            speaker, or `words` to expect.
        mix: How two voices are mixed, where a speaker is told.
        words: Which words are listed, where words are told.
    """

    method: str = "cross_attention"
    tell: Tell = "enrolment"
    mix: MixConfig = field(default_factory=MixConfig)
    words: WordsConfig = field(default_factory=WordsConfig)

    @property
    def told(self) -> frozenset[str]:
        """The condition that is told."""
        return frozenset({CONDITION[self.tell]})

    def problems(self) -> list[str]:
        """Say which settings do not fit one another, the method or the models at hand."""
        found = super().problems()
        if self.arm == "full":
            found.append("arm=full was asked for, but an encoder alone can be told nothing.")
        again = self.repeat.batches or self.repeat.variants or self.prefix.cache != "none"
        if self.batch.join_prob or again:
            found.append(
                "rows are told something of one utterance, mixed and drawn anew each time. Set "
                "batch.join_prob=0 repeat.batches=0 repeat.variants=0 prefix.cache=none."
            )
        if self.tell == "activity" and self.augment.tempo != (1.0, 1.0):
            found.append(
                f"augment.tempo={list(self.augment.tempo)} would move the speech away from the "
                "track that tells when it sounds. Set augment.tempo=[1,1]."
            )
        return found


def build(config: Config) -> ConditionedObjective:
    """Make the objective of a run."""
    return ConditionedObjective(config)


class ConditionedObjective(TranscribedObjective):
    """A frozen encoder with an adapter that reads conditions, and a CTC head.

    The arm `head` gets the same rows and is told nothing.

    Args:
        config: The run.
    """

    config: Config

    def _drawn(self, speech: SpeechBatches) -> SpeechBatches:
        config = self.config
        self.teller = Teller(speech, config.tell, config.mix, config.words)
        members = set(self.teller.members)
        drawable = [
            item if index in members else replace(item, duration=0.0)
            for index, item in enumerate(speech.utterances)
        ]
        drawn = copy.copy(speech)
        drawn.plan = BatchPlan(drawable, config.batch, config.trainer.seed)
        return drawn

    def _held_out(self, ground: Ground) -> Mapping[str, Sequence[tuple[Signal, Utterance]]]:
        rate = self.speech.sample_rate
        self.told: dict[str, Told] = {}
        sets: dict[str, list[tuple[Signal, Utterance]]] = {}
        rows = [row for items in ground.dev.values() for row in items]
        for item, told in self.teller.held_out(rows, rate) if rows else ():
            self.told[item.id] = told
            sets.setdefault(str(item.extra.get("corpus", "dev")), []).append((told.signal, item))
        return sets

    def batch(self, step: int, rank: int) -> Batch:
        """Build features of what is heard, labels, and what is told; see `Objective.batch`."""
        rows = self.speech.plan.rows(step, rank)
        made = [self.teller.row(row) for row in rows]
        features, lengths = self.inputs.features([one for one, _ in made], step)
        batch = self.inputs.labels(rows) | {"features": features, "lengths": lengths}
        if self.handle is None:
            return batch
        told = [one for _, one in made]
        start_s = 0.0 if self.config.data.edge_s else self.margin_s
        return batch | tensors_of(told, self.config.tell, self.encoder, start_s)

    def _frames(self, batch: Batch) -> tuple[Frames, Lengths]:
        with self._being_told(batch):
            return super()._frames(batch)

    def _read(self, name: str, signals: list[Signal]) -> list[str]:
        corpus, _, start = name.rpartition("-")
        rows = self.dev.sets[corpus][int(start) : int(start) + len(signals)]
        told = [self.told[item.id] for _, item in rows]
        batch: Batch = {}
        if self.handle is not None:
            batch = tensors_of(told, self.config.tell, self.encoder, self.margin_s)
            batch = {key: value.to(self.device) for key, value in batch.items()}
        with self._being_told(batch):
            return super()._read(name, signals)

    def _being_told(self, batch: Batch) -> AbstractContextManager[None]:
        if self.handle is None:
            return nullcontext()
        settings = self.handle.config
        conditions = conditions_of(batch, self.config.tell, self.encoder, settings)
        return active(self.encoder, self.handle.name, conditions)

    def evaluate(self) -> dict[str, float]:
        """Score greedy decoding on what is held out.

        Beside the rates of `TranscribedObjective`: of mixtures `other`, the WER against what the
        other voice says; of words `recall` and `inserted` (see `metrics.hot_words`).
        """
        found = super().evaluate()
        scored = [item for score in self.dev.scored.values() for item in score.items]
        pairs = [(item.pair, self.told[item.pair.id]) for item in scored]
        if self.config.tell == "words":
            words = score_hot_words(
                (pair.reference or "", pair.hypothesis or "", told.words) for pair, told in pairs
            )
            return found | {"recall": words.recall, "inserted": words.inserted_per_item}
        others = [
            Pair(pair.id, told.other, pair.hypothesis, pair.speaker, pair.language)
            for pair, told in pairs
        ]
        other = score_pairs(others, self.config.normaliser, self.config.language or None)
        return found | {"other": other.wer}

    def _write(self, folder: Path, scores: Mapping[str, Any]) -> None:
        training = self.training_facts() | {"told": self.config.tell}
        save_adapted(
            folder,
            self.encoder,
            self.handle,
            self.head,
            self.described_head,
            training=training,
            scores=scores,
        )
