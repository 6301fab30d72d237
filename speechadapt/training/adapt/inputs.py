"""The batches of an adaptation: rows of a plan that may come again, with features and labels.

An input can only be reused where it comes again. Two things make it: `batches`, the number of
batches that the run goes through again and again, and `variants`, the number of ways in which an
utterance is augmented at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from speechadapt.audio.augment import AugmentConfig
from speechadapt.core.limits import CountOrNone
from speechadapt.core.seed import generator
from speechadapt.core.shapes import Lengths
from speechadapt.data.batch import BatchConfig, Row
from speechadapt.text.alphabet import Alphabet
from speechadapt.training.adapt.features import augments_features, augments_signal
from speechadapt.training.objective import Batch
from speechadapt.training.speech import DataConfig, SpeechBatches, SpeechRow

Unit = Literal["batch", "row"]
Kept = Callable[[str], bool]
Features = Callable[[Sequence[SpeechRow], int], tuple[Tensor, Lengths]]


@dataclass(frozen=True)
class RepeatConfig:
    """How inputs come again.

    Args:
        batches: Batches that the steps go through in turn; 0 draws a new one for each.
        variants: Ways in which each utterance is augmented, its edges included; 0 augments anew
            each time. They hang on the utterance alone, so runs with other seeds have the same.
    """

    batches: CountOrNone = 0
    variants: CountOrNone = 0

    def problems(self) -> list[str]:
        """Say which settings exclude one another."""
        if self.batches and self.variants:
            return [
                f"repeat.batches={self.batches} and repeat.variants={self.variants} are both "
                "given; the batches that come again have one variant each. Give one of the two."
            ]
        return []


def repeat_problems(repeat: RepeatConfig, batch: BatchConfig, augment: AugmentConfig) -> list[str]:
    """Say what keeps inputs from coming again as they were asked to.

    Args:
        repeat: How inputs come again.
        batch: How batches are drawn.
        augment: How they are augmented.
    """
    found = []
    masks = augment.time_masks or augment.band_masks
    if (repeat.batches or repeat.variants) and masks and augment.mask_from_step:
        found.append(
            f"augment.mask_from_step={augment.mask_from_step} changes inputs with the step, but "
            "repeat asks for inputs that come again. Set augment.mask_from_step=0."
        )
    if repeat.variants and batch.join_prob:
        found.append(
            f"batch.join_prob={batch.join_prob:g} makes rows that never come again, but "
            "repeat.variants asks for utterances that do. Set batch.join_prob=0, or use "
            "repeat.batches."
        )
    return found


def unit_of(
    repeat: RepeatConfig, data: DataConfig, batch: BatchConfig, augment: AugmentConfig
) -> Unit | None:
    """Return what comes again: whole batches, rows, or None where every input is new.

    Args:
        repeat: How inputs come again.
        data: What is read.
        batch: How batches are drawn.
        augment: How they are augmented.
    """
    if repeat.batches:
        return "batch"
    random = (
        data.edge_s
        or augments_features(augment)
        or augments_signal(augment, bool(data.noise), bool(data.responses))
    )
    if repeat.variants or not (random or batch.join_prob):
        return "row"
    return None


class AdaptInputs:
    """Builds the batches of an adaptation.

    Args:
        speech: Rows.
        features: Makes features of them.
        alphabet: Writes their texts.
        repeat: How inputs come again.
        unit: What is kept of them: batches, rows, or nothing.
        seed: Of the whole run.
    """

    def __init__(
        self,
        speech: SpeechBatches,
        features: Features,
        alphabet: Alphabet,
        repeat: RepeatConfig,
        unit: Unit | None,
        seed: int,
    ) -> None:
        self.speech = speech
        self.features = features
        self.alphabet = alphabet
        self.repeat = repeat
        self.unit = unit
        self.seed = seed

    def batch(self, step: int, rank: int, kept: Kept) -> Batch:
        """Build the batch of one step on one process.

        Args:
            step: Micro-step.
            rank: Process number.
            kept: Whether the states under a key are kept, so that no features are needed.

        Returns:
            `labels`, `label_lengths`; `features` and `lengths`, or a `key` for the batch (with
            `features` and `lengths` where it is not kept), or `keys` for its rows (with
            `features.<row>` and `lengths.<row>` where they are not kept).
        """
        index = step % self.repeat.batches if self.repeat.batches else step
        rows = self.speech.plan.rows(index, rank)
        keys = [(row.parts[0], 0) for row in rows]
        if self.repeat.variants:
            rows, keys = self._variants(rows, step, rank)
        batch = self.labels(rows)
        if self.unit is None:
            return batch | self._features(rows, step, "")
        if self.unit == "batch":
            batch["key"] = torch.tensor([rank, index])
            missing = not kept(batch_key(batch["key"]))
            return batch | (self._features(rows, step, "") if missing else {})
        batch["keys"] = torch.tensor(keys)
        for number, (row, key) in enumerate(zip(rows, row_keys(batch["keys"]), strict=True)):
            if not kept(key):
                batch |= self._features([row], step, f".{number}")
        return batch

    def _variants(
        self, rows: Sequence[Row], step: int, rank: int
    ) -> tuple[list[Row], list[tuple[int, int]]]:
        random = generator(self.seed, "variant", step, rank)
        drawn = random.integers(self.repeat.variants, size=len(rows)).tolist()
        keys = [(row.parts[0], variant) for row, variant in zip(rows, drawn, strict=True)]
        names = [self.speech.utterances[index].id for index, _ in keys]
        seeds = [("variant", name, variant) for name, variant in zip(names, drawn, strict=True)]
        return [replace(row, seed=seed) for row, seed in zip(rows, seeds, strict=True)], keys

    def labels(self, rows: Sequence[Row]) -> Batch:
        """Return the labels of rows, `labels` and `label_lengths`."""
        texts = [self.speech.plan.text(row) for row in rows]
        labels = [torch.tensor(self.alphabet.encode(text), dtype=torch.long) for text in texts]
        return {
            "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=0),
            "label_lengths": torch.tensor([len(item) for item in labels]),
        }

    def _features(self, rows: Sequence[Row], step: int, suffix: str) -> Batch:
        features, lengths = self.features([self.speech.row(row) for row in rows], step)
        return {f"features{suffix}": features, f"lengths{suffix}": lengths}


def batch_key(key: Tensor) -> str:
    """Return the name of a batch: its process and its number.

    Args:
        key: Both, as `AdaptInputs.batch` gives them.
    """
    rank, index = key.tolist()
    return f"batch-{rank}-{index}"


def row_keys(keys: Tensor) -> list[str]:
    """Return the names of rows: utterance and variant.

    Args:
        keys: Both of each row, as `AdaptInputs.batch` gives them.
    """
    return [f"row-{utterance}-{variant}" for utterance, variant in keys.tolist()]
