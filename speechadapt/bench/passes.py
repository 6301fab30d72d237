"""Timed passes: the sides take turns over the same batches, and share the encoder's frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch

from speechadapt.bench.clips import Clip
from speechadapt.bench.sides import Side
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.base import Hypothesis
from speechadapt.encoders.base import Encoder

Result = TypeVar("Result")
Batches = Mapping[str, Sequence[Sequence[Clip]]]


@dataclass
class Seconds:
    """Time by round.

    Args:
        encode: Features and encoder, in seconds.
        decode: The decoder, in seconds.
    """

    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)

    @property
    def total(self) -> list[float]:
        """Both, by round."""
        return [sum(pair) for pair in zip(self.encode, self.decode, strict=True)]


@dataclass(frozen=True)
class Measured:
    """What was measured of a side.

    Args:
        side: The side.
        seconds: Its time, by range of lengths.
        written: Its hypotheses, by clip.
    """

    side: Side
    seconds: dict[str, Seconds]
    written: dict[str, Hypothesis]

    @property
    def whole(self) -> Seconds:
        """The time of all ranges together."""
        parts = list(self.seconds.values())
        return Seconds(
            [sum(values) for values in zip(*(part.encode for part in parts), strict=True)],
            [sum(values) for values in zip(*(part.decode for part in parts), strict=True)],
        )


def measure(
    sides: Sequence[Side], batches: Batches, waveform: Callable[[Clip], torch.Tensor], rounds: int
) -> list[Measured]:
    """Let the sides take turns; a batch decoded by each before the first round warms them up.

    Args:
        sides: In the order of the first round; each round begins one side later.
        batches: By range of lengths.
        waveform: Returns a clip's samples as the encoder takes them.
        rounds: How often everything is timed.
    """
    found = [Measured(side, {}, {}) for side in sides]
    first = next(iter(batches.values()))[:1]
    _pass(found, {"warm-up": first}, waveform)
    for one in found:
        one.seconds.clear()
        one.written.clear()
    for turn in range(rounds):
        at = turn % len(found)
        _pass([*found[at:], *found[:at]], batches, waveform)
    return found


def timed(work: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Return how long something takes, in seconds, and its result.

    Args:
        work: What is timed.
        device: Where it runs; an accelerator is waited for before and after.
    """
    _wait(device)
    begin = time.perf_counter()
    result = work()
    _wait(device)
    return time.perf_counter() - begin, result


def _pass(
    found: Sequence[Measured], batches: Batches, waveform: Callable[[Clip], torch.Tensor]
) -> None:
    for name, members in batches.items():
        spent = [[0.0, 0.0] for _ in found]
        for batch in members:
            heard: dict[int, tuple[float, tuple[Frames, Lengths]]] = {}
            for one, own in zip(found, spent, strict=True):
                encoder, decode = one.side.encoder, one.side.decode
                device = next(encoder.parameters()).device
                if id(encoder) not in heard:
                    heard[id(encoder)] = _encoded(encoder, [waveform(clip) for clip in batch])
                encoding, frames = heard[id(encoder)]
                decoding, texts = timed(partial(decode, *frames), device)
                own[0] += encoding
                own[1] += decoding
                one.written.update({clip.id: text for clip, text in zip(batch, texts, strict=True)})
        for one, (encoding, decoding) in zip(found, spent, strict=True):
            kept = one.seconds.setdefault(name, Seconds())
            kept.encode.append(encoding)
            kept.decode.append(decoding)


@torch.inference_mode()
def _encoded(
    encoder: Encoder, waveforms: Sequence[torch.Tensor]
) -> tuple[float, tuple[Frames, Lengths]]:
    device = next(encoder.parameters()).device
    return timed(lambda: encoder.encode(waveforms), device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
