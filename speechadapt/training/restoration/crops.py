"""Short pieces of features with the waveform they stand for."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechadapt.audio.augment import Signal, fit_length
from speechadapt.core.shapes import Frames

_TRIES = 3


def choose_start(signal: Signal, frames: int, hop: int, random: np.random.Generator) -> int:
    """Draw where a piece begins, the loudest of three draws: silence teaches a vocoder nothing.

    Args:
        signal: The clean signal.
        frames: Frames of the piece.
        hop: Samples of a frame.
        random: Draws the beginnings.

    Returns:
        The first frame of the piece.
    """
    total = max(1, -(-len(signal) // hop))
    starts = random.integers(0, max(1, total - frames + 1), _TRIES)
    loudness = [float(np.square(_piece(signal, int(s), frames, hop)).sum()) for s in starts]
    return int(starts[int(np.argmax(loudness))])


def _piece(signal: Signal, start: int, frames: int, hop: int) -> Signal:
    return fit_length(signal[start * hop : (start + frames) * hop], frames * hop)


def cut_signal(signal: Signal, start: int, frames: int, hop: int) -> Tensor:
    """Return the samples of a piece, zeros where the signal has ended.

    Args:
        signal: The clean signal.
        start: Its first frame.
        frames: How many.
        hop: Samples of a frame.
    """
    return torch.tensor(_piece(signal, start, frames, hop))


def cut_frames(
    frames: Frames, starts: Int[Tensor, " batch"], count: int
) -> Float[Tensor, "batch count dim"]:
    """Return the frames of a piece of every row; past its end a row repeats its last.

    Args:
        frames: Of whole rows.
        starts: First frame of each piece.
        count: Frames of a piece.
    """
    places = starts[:, None] + torch.arange(count, device=frames.device)
    places = places.clamp(max=frames.shape[1] - 1)
    return frames.gather(1, places[:, :, None].expand(-1, -1, frames.shape[2]))
