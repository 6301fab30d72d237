"""Samples and frames in step: every frame of an encoder stands for whole samples of the waveform.

The encoder's filter banks look through 25 ms windows every 10 ms. With half the overhang, 7.5 ms,
put before a signal and after it, frame j is centred on the samples `[j hop, (j + 1) hop)`, and the
last frame covers the last sample.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from speechadapt.core.errors import ConfigError
from speechadapt.core.shapes import Waveform
from speechadapt.encoders.base import Encoder

_OVERHANG_S = 0.0075


def frame_hop(encoder: Encoder, sample_rate: int) -> int:
    """Return the samples of a waveform that one frame stands for.

    Args:
        encoder: Gives the frames.
        sample_rate: Of the waveform, in Hz.

    Raises:
        ConfigError: That is no whole number.
    """
    hop = sample_rate / encoder.frame_rate
    if abs(hop - round(hop)) > 1e-6:
        raise ConfigError(
            f"a waveform at {sample_rate} Hz was to be in step with frames at "
            f"{encoder.frame_rate:g} Hz, but a frame would last {hop:g} samples. Take a sample "
            "rate that is a multiple of the frame rate."
        )
    return round(hop)


def num_frames(samples: int, hop: int) -> int:
    """Return how many frames cover so many samples, at least one.

    Args:
        samples: Length of the waveform.
        hop: Samples of a frame.
    """
    return max(1, math.ceil(samples / hop))


def framed(waveform: Waveform, encoder: Encoder) -> Float[Tensor, " padded"]:
    """Extend a waveform so that the encoder gives exactly `num_frames` frames, centred.

    The signal is mirrored at its ends, or followed by zeros where it is too short for that.

    Args:
        waveform: At the encoder's sample rate.
        encoder: Gives the frames.
    """
    hop, samples = frame_hop(encoder, encoder.sample_rate), waveform.shape[0]
    side = round(_OVERHANG_S * encoder.sample_rate)
    after = num_frames(samples, hop) * hop - samples + side
    if samples > after:
        mirrored: Tensor = functional.pad(waveform[None], (side, after), mode="reflect")[0]
        return mirrored
    return torch.nn.functional.pad(waveform, (side, after))
