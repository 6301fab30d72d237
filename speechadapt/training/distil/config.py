"""What a run with a teacher is made of: its settings, its models, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from speechadapt.adapters.handle import Handle
from speechadapt.audio.augment import AugmentConfig
from speechadapt.core.errors import ConfigError
from speechadapt.core.limits import Count, NotNegative
from speechadapt.data.batch import BatchConfig
from speechadapt.decoders.base import Decoder
from speechadapt.decoders.whisper_ar.decoder import WhisperDecoder
from speechadapt.encoders.base import Encoder
from speechadapt.training.distil.inputs import DegradeConfig
from speechadapt.training.distil.loss import FrameLossConfig
from speechadapt.training.distil.models import TextReader
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.speech import DataConfig, mix_problems


@dataclass(frozen=True)
class TaughtConfig:
    """What every run with a teacher has.

    Args:
        data: Recordings.
        batch: Batches.
        augment: Augmentation of the clip that both hear.
        frames: Weights of the terms on encoder states.
        trainer: Steps.
        adapter: The method's settings.
        decoder_weight: Weight of the divergence between the tokens that the frozen decoder writes
            from the teacher's frames and from the student's, along the transcript; rows without a
            transcript have no such term.
        text_weight: Weight of the transcript's own cross-entropy from the student's frames.
        normaliser: Rules by which dev texts are compared.
        language: BCP 47 code of all texts; empty takes each dev recording's own, and leaves it to
            a decoder of several languages to name its own.
        score: What chooses the best step; `auto` is `wer` where a decoder reads and else `loss`.
        margin_s: Hiss on either side of a clip; None takes the base's.
        dev_items: Most dev recordings scored per corpus.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    frames: FrameLossConfig = field(default_factory=FrameLossConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    decoder_weight: NotNegative = 0.0
    text_weight: NotNegative = 0.0
    normaliser: str = "verbatim"
    language: str = ""
    score: Literal["auto", "loss", "wer", "cer"] = "auto"
    margin_s: NotNegative | None = None
    dev_items: Count = 60

    def problems(self) -> list[str]:
        """Say which settings do not fit one another."""
        return mix_problems(self.data, self.batch)


@dataclass(frozen=True)
class Taught:
    """The models of a run.

    Args:
        student: Hears through the adapter.
        teacher: Gives the targets.
        handle: The adapter.
        decoder: Reads the student's frames; None where nobody does.
        teacher_decoder: Reads the teacher's frames.
        padding: How the decoder attends to the student's frames.
        margin_s: Hiss on either side of a clip, in seconds.
        degrade: What the student's clip suffers.
        paths: Modules compared, of student and teacher alike.
    """

    student: Encoder
    teacher: Encoder
    handle: Handle
    decoder: Decoder | None
    teacher_decoder: Decoder | None
    padding: str
    margin_s: float
    degrade: DegradeConfig = field(default_factory=DegradeConfig)
    paths: tuple[str, ...] = ()


def check_window(config: TaughtConfig, *encoders: Encoder) -> None:
    """Refuse batches whose rows outlast a window.

    Args:
        config: The run.
        encoders: Whose windows.

    Raises:
        ConfigError: `batch.max_s` is above one.
    """
    windows = [one.window_s for one in encoders if one.window_s is not None]
    if windows and config.batch.max_s > min(windows):
        raise ConfigError(
            f"batch.max_s={config.batch.max_s:g} lets in recordings longer than the window of "
            f"{min(windows):g} s. Set batch.max_s={min(windows):g} or less."
        )


def make_reader(config: TaughtConfig, decoder: Decoder | None) -> TextReader | None:
    """Return what reads transcripts along; None where no weight asks for it.

    Args:
        config: The run.
        decoder: The decoder of the student's frames.

    Raises:
        ConfigError: A weight asks for it, and the decoder is not Whisper's.
    """
    if not config.decoder_weight and not config.text_weight:
        return None
    if not isinstance(decoder, WhisperDecoder):
        found = "no decoder" if decoder is None else f"the decoder '{decoder.name}'"
        raise ConfigError(
            "decoder_weight and text_weight are of what Whisper's decoder reads, but the base has "
            f"{found}. Set both to 0."
        )
    return TextReader(decoder)


def choose_score(config: TaughtConfig, decoder: Decoder | None) -> str:
    """Return the name of the evaluation figure that chooses the best step.

    Args:
        config: The run.
        decoder: The decoder of the student's frames.

    Raises:
        ConfigError: A rate of texts is asked for and nobody writes any.
    """
    if config.score == "auto":
        return "loss" if decoder is None else "wer"
    if config.score != "loss" and decoder is None:
        raise ConfigError(
            f"score={config.score} was asked for, but the base has no decoder that writes texts. "
            "Set score=loss."
        )
    return config.score
