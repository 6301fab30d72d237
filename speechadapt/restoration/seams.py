"""Recordings of any length in pieces: where to cut, and how the pieces become one again.

A cut lies where the signal is quietest, in the second half of what a piece may last, and is a
function of the samples alone. Every piece is heard with some context on either side; what comes
out overlaps its neighbour by a short fade, inside which the energy goes over from one to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speechadapt.audio.span import Signal
from speechadapt.core.limits import Positive

_LEAST = 1e-12
_MOST_GAIN = 4.0


@dataclass(frozen=True)
class PieceConfig:
    """How long recordings are cut.

    Args:
        longest_s: Longest piece; a last one may have a second more.
        context_s: What is heard before and after a piece.
        fade_s: Overlap of neighbours.
    """

    longest_s: Positive = 15.0
    context_s: Positive = 1.0
    fade_s: Positive = 0.08


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording with what surrounds it.

    Args:
        samples: Context, piece and context.
        lead: Frames of context before it, the fade's half among them.
        frames: Frames of the piece itself.
        first: Nothing comes before it.
        last: Nothing comes after it.
    """

    samples: Signal
    lead: int
    frames: int
    first: bool
    last: bool


class Cutter:
    """Cuts a stream of samples into pieces of whole frames, in bounded memory.

    Args:
        config: How long they are.
        frame_rate: Of the frames, in Hz.
        hop: Samples of a frame.
    """

    def __init__(self, config: PieceConfig, frame_rate: float, hop: int) -> None:
        self.hop = hop
        self.longest = max(4, round(config.longest_s * frame_rate))
        self.context = max(1, round(config.context_s * frame_rate))
        self.half_fade = max(1, round(config.fade_s * frame_rate / 2))
        self.least_rest = max(2 * self.half_fade, round(frame_rate))
        self.context = max(self.context, self.half_fade)

    def pieces(self, blocks: Iterable[Signal]) -> Iterator[Piece]:
        """Yield the pieces of a recording.

        Args:
            blocks: Its samples, in any portions.
        """
        held = np.zeros(0, dtype=np.float32)
        start = lead = 0  # where the piece begins in what is held, in frames
        needed = self.longest + max(self.context, self.least_rest)
        for block in blocks:
            held = np.concatenate([held, block])
            while len(held) > (start + needed) * self.hop:
                frames = self._cut(held, start)
                end = (start + frames + self.context) * self.hop
                first = start == 0
                yield Piece(held[:end].copy(), lead, frames, first, last=False)
                keep = start + frames - self.context
                drop = max(0, keep)
                held = held[drop * self.hop :]
                start = start + frames - drop
                lead = start
        total = -(-len(held) // self.hop)
        if total > start or start == 0:
            yield Piece(held, lead, total - start, start == 0, last=True)

    def _cut(self, held: Signal, start: int) -> int:
        """Return the frames of the next piece, up to the quietest place in its second half."""
        low, high = self.longest // 2, self.longest
        first = (start + low - 1) * self.hop
        window = held[first : (start + high + 1) * self.hop].astype(np.float64)
        energy = np.square(window).reshape(-1, self.hop).sum(1)
        # a cut lies between two frames: both should be quiet
        return low + int(np.argmin(energy[:-1] + energy[1:]))


def joined(parts: Iterable[Signal], fade: int) -> Iterator[Signal]:
    """Join parts that overlap, each by `fade` samples with the next.

    Args:
        parts: Signals, every one of at least two fades but the last, which has one or more.
        fade: Samples of the overlap.

    Yields:
        The joined signal, portion by portion.
    """
    pending: Signal | None = None
    for part in parts:
        if pending is not None:
            yield blended(pending, part[:fade])
            part = part[fade:]
        cut = len(part) - fade
        pending = None
        if cut >= 0:
            yield part[:cut]
            pending = part[cut:]
        else:
            yield part
    if pending is not None:
        yield pending


def blended(before: Signal, after: Signal) -> Signal:
    """Go over from one signal to another of the same length, level and all.

    The one is led to the other's energy over the stretch and the other from the one's, by at most
    a factor of four, while a linear fade goes from the one to the other.

    Args:
        before: What is there at the beginning.
        after: What is there at the end.
    """
    energies = [float(np.square(part, dtype=np.float64).sum()) for part in (before, after)]
    gain = 1.0
    if min(energies) > _LEAST:
        gain = float(np.clip(np.sqrt(energies[1] / energies[0]), 1 / _MOST_GAIN, _MOST_GAIN))
    ramp = (np.arange(len(before)) + 0.5) / max(1, len(before))
    first = before * gain**ramp * (1 - ramp)
    second = after * gain ** (ramp - 1) * ramp
    return np.asarray(first + second, dtype=np.float32)
