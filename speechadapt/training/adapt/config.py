"""The settings of an adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from speechadapt.audio.augment import AugmentConfig
from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.core.limits import NotNegative, Positive, Probability
from speechadapt.data.batch import BatchConfig
from speechadapt.encoders.source import weight_files
from speechadapt.models.build import find_model
from speechadapt.text.normalise import load_normaliser
from speechadapt.training.adapt.inputs import RepeatConfig, repeat_problems, unit_of
from speechadapt.training.adapt.objective import Arm, method_problems
from speechadapt.training.adapt.parts import BUNDLED_BASE, is_hub_id
from speechadapt.training.adapt.reuse import PrefixConfig
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.speech import DataConfig, mix_problems


@dataclass(frozen=True)
class TranscribedConfig:
    """What every adaptation to transcripts has.

    Args:
        data: Recordings.
        batch: Batches.
        augment: Augmentation.
        repeat: How inputs come again.
        prefix: What becomes of the states below the first adapter.
        trainer: Steps; its learning rate and weight decay hold where no other is given.
        base: The model to adapt: a bundled one, a folder or a hub id.
        padding: How an encoder with a window is padded.
        arm: What is trained beside the head: the adapter, nothing (`head`), or every weight
            (`full`); the last two are there to compare with.
        method: The adapter method.
        adapter: The method's settings.
        roles: Role patterns; empty takes the method's own.
        train_norms: Which norms are trained beside it.
        adapter_rate: Peak learning rate of the adapter.
        head_rate: Peak learning rate of the head.
        adapter_decay: Weight decay of the adapter.
        head_decay: Weight decay of the head.
        head_dropout: On the frames that go into the head.
        alphabet: Symbols of the head: those the training texts need, the base's, or both.
        keep_head: Start from the base's head, whose symbols must be among these.
        normaliser: Rules by which texts are written and compared.
        language: BCP 47 code of the texts; empty takes each recording's own.
        score: The rate that chooses the best step: `headline` is the language's own.
        margin_s: Hiss on either side of a clip when it is read, and in training where
            `data.edge_s` is 0; None takes the base's.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    repeat: RepeatConfig = field(default_factory=RepeatConfig)
    prefix: PrefixConfig = field(default_factory=PrefixConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    base: str = BUNDLED_BASE
    padding: Literal["full", "native"] = "full"
    arm: Arm = "adapter"
    method: str = "lora"
    adapter: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    train_norms: Literal["none", "adapted", "all"] = "none"
    adapter_rate: Positive | None = None
    head_rate: Positive | None = None
    adapter_decay: NotNegative | None = None
    head_decay: NotNegative | None = None
    head_dropout: Probability = 0.1
    alphabet: Literal["texts", "base", "both"] = "texts"
    keep_head: bool = False
    normaliser: str = "verbatim"
    language: str = ""
    score: Literal["headline", "wer", "cer"] = "headline"
    margin_s: NotNegative | None = None

    @property
    def told(self) -> frozenset[str]:
        """Conditions that the run gives for every row."""
        return frozenset()

    def problems(self) -> list[str]:
        """Say which settings do not fit one another, the method or the models at hand."""
        found = mix_problems(self.data, self.batch) + method_problems(self, self.told)
        found += repeat_problems(self.repeat, self.batch, self.augment)
        try:
            load_normaliser(self.normaliser, self.language or None)
            if not is_hub_id(self.base):
                find_model(self.base)
        except (CatalogError, ConfigError) as error:
            found.append(str(error))
        if self.prefix.cache != "none":
            found += self._prefix_problems()
        return found

    def sources(self) -> dict[str, Path]:
        """Name the base's weights, where they are on this machine from the start."""
        if is_hub_id(self.base):
            return {}
        return {f"base/{path.name}": path for path in weight_files(find_model(self.base))}

    def _prefix_problems(self) -> list[str]:
        if self.arm == "full":
            return [f"prefix.cache={self.prefix.cache} keeps frozen states; arm=full has none."]
        if unit_of(self.repeat, self.data, self.batch, self.augment) is None:
            return [
                f"prefix.cache={self.prefix.cache} was asked for, but augmentation, silent edges "
                "or joined rows make every input new. Set repeat.batches=N (N batches in turn) or "
                "repeat.variants=N (N ways to augment each utterance), or switch those off."
            ]
        return []


@dataclass(frozen=True)
class Config(TranscribedConfig):
    """Everything an adaptation is made of: what every adaptation to transcripts has."""
