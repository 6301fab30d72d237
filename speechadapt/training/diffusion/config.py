"""Settings of the training of a masked-diffusion text decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from speechadapt.core.limits import (
    Count,
    CountOrNone,
    NotNegative,
    Probability,
    Range,
)
from speechadapt.decoders.masked_diffusion.shape import FrameCode

Stage = Literal["text", "adapter", "decoder"]


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a new network; one that is started from an earlier stage keeps its own.

    `streams` and `prefix` also hold for a network that has one stream so far.

    Args:
        dim: Width.
        layers: Number of layers.
        heads: Attention heads.
        feed_forward: Inner width of the feed-forwards.
        positions: Most tokens, the start and the end counted.
        text_tokens: Size of the byte-level vocabulary.
        gate: `zero` starts as the text network, `none` with random cross-attention.
        frame_code: What tells the network where a frame is: `none`, `time` or `count` (see the
            decoder's shape).
        length_head: Predict the number of tokens from the frames.
        dropout: On the output of every block.
        streams: Parallel streams of every text; a network that has one gains the others with the
            stage that asks for them, one that has several keeps its own.
        prefix: Learned keys and values of each stream in every self-attention.
    """

    dim: Count = 192
    layers: Count = 4
    heads: Count = 4
    feed_forward: Count = 512
    positions: Annotated[int, Range(2.0)] = 96
    text_tokens: Annotated[int, Range(258.0)] = 512
    gate: Literal["zero", "none"] = "zero"
    frame_code: FrameCode = "count"
    length_head: bool = True
    dropout: Probability = 0.1
    streams: Count = 1
    prefix: Count = 48


@dataclass(frozen=True)
class MaskingConfig:
    """What is hidden, and what it costs.

    Args:
        ratio: Lowest and highest probability of a token to be hidden, drawn for each row.
        weighted: Divide each row's cost by its ratio, which makes the mean an upper bound of the
            negative log-likelihood; off, all hidden tokens count alike.
        slack: Most pads after the end of a text, drawn for each row; they are hidden and scored as
            all tokens are. 0 fills every position.
        draws: Ways of hiding each row that are learned from at once. They share what was heard, so
            another one costs far less than another row.
    """

    ratio: Annotated[tuple[float, float], Range(least=1e-3, most=1.0)] = (1e-3, 1.0)
    weighted: bool = False
    slack: CountOrNone = 12
    draws: Count = 1


@dataclass(frozen=True)
class DevConfig:
    """How the dev sets are decoded.

    Args:
        items: Most recordings scored per corpus.
        num_candidates: Texts written for each.
        num_steps: Steps.
        select: How one of them is chosen.
    """

    items: Count = 60
    num_candidates: Count = 5
    num_steps: Count = 4
    select: Literal["confidence", "mbr", "rover", "mbr+confidence"] = "mbr"


@dataclass(frozen=True)
class TextConfig:
    """Texts besides the transcripts, for the stage `text`.

    Args:
        file: A UTF-8 file with a text in each line; empty for none.
        share: Share of the rows that are drawn from it.
        recombine: Share of the transcripts with `slots` whose slots take other values that the
            training rows have for them (see `data.recombine`).
    """

    file: str = ""
    share: Probability = 0.5
    recombine: Probability = 0.0


@dataclass(frozen=True)
class RateConfig:
    """What a stage learns how fast, besides the words.

    Args:
        length_weight: Weight of the length head's cost.
        layer_decay: Stage `decoder`: each layer's learning rate as a factor of that of the layer
            above; cross-attention keeps the full rate.
    """

    length_weight: NotNegative = 0.1
    layer_decay: Annotated[float, Range(above=0.0, most=1.0)] = 0.9
