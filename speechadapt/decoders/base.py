"""What every decoder takes and gives: encoder frames in, hypotheses out."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from speechadapt.core.shapes import Frames, Lengths


@dataclass(frozen=True)
class Word:
    """One written word.

    Args:
        text: The word, without surrounding space.
        start: Seconds from the start of the decoded audio.
        end: Seconds from the start of the decoded audio.
        probability: Mean probability of its tokens, 0 to 1.
    """

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Hypothesis:
    """What a decoder made of one utterance.

    Args:
        text: The transcript.
        tokens: Token ids, without special ones.
        words: Words with times, where the decoder gives them.
        avg_logprob: Mean log-probability per token (natural logarithm).
        no_speech_prob: Probability that nobody speaks; None where the decoder has no such score.
        compression_ratio: UTF-8 bytes over zlib bytes of the text; repetition raises it.
        temperature: Sampling temperature that gave this text.
        flags: Reasons for doubt (`no_speech`, `compression`, ...).
        details: Anything else worth keeping, JSON types only.
    """

    text: str
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] = ()
    avg_logprob: float = 0.0
    no_speech_prob: float | None = None
    compression_ratio: float = 1.0
    temperature: float = 0.0
    flags: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def compression_ratio(text: str) -> float:
    """Return UTF-8 bytes over zlib bytes of a text, 1.0 for the empty one; repetition raises it."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data)) if data else 1.0


class Decoder(nn.Module, ABC):
    """Turns the frames of one encoder into text.

    Attributes:
        name: The decoder's name in the catalogue (`ctc`, `whisper_ar`).
    """

    name: str

    @classmethod
    @abstractmethod
    def claims(cls, config: Mapping[str, Any]) -> bool:
        """Tell from a transformers `config.json` whether the folder holds this decoder."""

    @classmethod
    @abstractmethod
    def from_folder(cls, folder: Path, options: Mapping[str, Any]) -> Decoder:
        """Load the decoder of a model folder, in float32 on the CPU.

        Args:
            folder: An ordinary transformers model folder.
            options: The decoder's options by name.

        Raises:
            CheckpointError: Weights or tokenizer files are missing or do not fit.
            ConfigError: An option is unknown or out of range.
        """

    @classmethod
    @abstractmethod
    def tiny(cls, dim: int) -> Decoder:
        """Make one with random weights, small enough for the contract suite.

        Args:
            dim: Width of the frames it will take.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all that shapes the text besides the weights, JSON types only.

        It goes into a job's fingerprint, so a file the decoder reads is there by its content's
        hash, not by its path.
        """

    @abstractmethod
    def decode(
        self,
        frames: Frames,
        lengths: Lengths,
        frame_rate: float,
        languages: Sequence[str | None] | None = None,
    ) -> list[Hypothesis]:
        """Write one hypothesis per row.

        Args:
            frames: Encoder frames.
            lengths: Valid frames per row.
            frame_rate: Frames per second, for word times.
            languages: BCP 47 code of each row's speech where somebody said it; a decoder of one
                language passes it over.

        Returns:
            One hypothesis per row, in order; an empty text where nothing was heard.
        """
