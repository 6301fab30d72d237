"""What a clip's log-mels say about it as a whole: own mean and deviation, and a level-free summary.

A w2v-BERT encoder hears every mel bin with the mean and the deviation of the clip taken out. What
is taken out tells speech from damage: noise lifts the mean and narrows the deviation, a codec
empties whole bins. The summary says so without the clip's level, which means nothing:

    spectrum     each bin's mean less the mean of all bins
    deviation    natural logarithm of each bin's deviation
    quantiles    of each bin over time, mean and deviation taken out
    energy       quantiles over time of the mean over bins, mean and deviation taken out
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechadapt.core.shapes import Frames, Lengths, length_mask

_LEAST_VARIANCE = 1e-7  # of the encoders' own extractor
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_TRUSTED_VARIANCE = 0.01  # squared nats; speech in noise has 1 to 10
_TRUSTED_FRAMES = 10.0


@dataclass(frozen=True)
class ClipStatistics:
    """Of every clip of a batch.

    Args:
        standard: Log-mels with the clip's own mean and deviation taken out, zero past its end.
        summary: What those were, and how the rest is spread, level-free.
        trust: How much there is to learn from the clip, between 0 and 1: it falls to 0 where
            nothing changes over time, as in silence, and where there are few frames.
    """

    standard: Float[Tensor, "batch frames bins"]
    summary: Float[Tensor, "batch summary"]
    trust: Float[Tensor, " batch"]


def summary_size(bins: int) -> int:
    """Return the width of a summary.

    Args:
        bins: Mel bins.
    """
    return (2 + len(_SHARES)) * bins + len(_SHARES)


def clip_statistics(log_mels: Frames, lengths: Lengths) -> ClipStatistics:
    """Take the statistics of each clip over its own frames, in float32.

    Every result is finite where the log-mels are. A constant added to a clip's log-mels, which is a
    change of level, changes nothing.

    Args:
        log_mels: Natural logarithms of mel energies, one column a bin; what lies past a clip's end
            is not read.
        lengths: Valid frames per clip, at least one.
    """
    valid = length_mask(lengths, log_mels.shape[1])[:, :, None]
    first = log_mels[:, :1].float()
    # seen from the first frame silence is exactly zero, and sums round less
    values = (log_mels.float() - first).masked_fill(~valid, 0.0)
    counts = lengths[:, None].float()
    offset = values.sum(1) / counts
    centred = (values - offset[:, None]).masked_fill(~valid, 0.0)
    variance = centred.square().sum(1) / (counts - 1).clamp(min=1.0)
    deviation = (variance + _LEAST_VARIANCE).sqrt()
    standard = centred / deviation[:, None]
    mean = first[:, 0] + offset
    energy = standard.mean(2, keepdim=True)
    summary = [
        mean - mean.mean(1, keepdim=True),
        deviation.log(),
        _quantiles(standard, lengths).flatten(1),
        _quantiles(energy, lengths).flatten(1),
    ]
    steady = variance.mean(1)
    trust = steady / (steady + _TRUSTED_VARIANCE)
    trust = trust * lengths.float() / (lengths.float() + _TRUSTED_FRAMES)
    return ClipStatistics(standard, torch.cat(summary, dim=1), trust)


def _quantiles(values: Frames, lengths: Lengths) -> Float[Tensor, "batch shares dim"]:
    """Return quantiles over the valid frames, interpolated linearly as `torch.quantile` does."""
    valid = length_mask(lengths, values.shape[1])[:, :, None]
    # padding sorts to the end, behind every place that is looked up
    ordered = values.masked_fill(~valid, torch.inf).sort(dim=1).values
    shares = torch.tensor(_SHARES, device=values.device)
    places = (lengths[:, None].float() - 1) * shares
    below = places.floor().long()
    above = places.ceil().long()
    weight = (places - below)[:, :, None]
    low, high = (_rows(ordered, at) for at in (below, above))
    return low + weight * (high - low)


def _rows(values: Frames, places: Int[Tensor, "batch shares"]) -> Float[Tensor, "batch shares dim"]:
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))
