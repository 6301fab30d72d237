"""The CTC loss of a batch, with items too short for their labels counted and left out."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from speechadapt.core.shapes import Frames, Lengths, Tokens, length_mask


def ctc_per_label(
    logits: Frames, lengths: Lengths, labels: Tokens, label_lengths: Lengths, blank: int
) -> tuple[Float[Tensor, ""], Bool[Tensor, " batch"]]:
    """Return the CTC loss per label and which rows could be aligned at all.

    A row with fewer frames than labels plus repeated neighbours has probability zero: its loss is
    infinite and the gradient of that is not a number, so such rows take no part.

    Args:
        logits: One score per frame and symbol.
        lengths: Valid frames per row.
        labels: Padded label ids.
        label_lengths: Valid labels per row; 0 asks for blanks alone.
        blank: Id of the blank.

    Returns:
        Nats per label over the rows that fit, and True for those rows.
    """
    logprobs = logits.float().log_softmax(-1).transpose(0, 1)
    each = functional.ctc_loss(
        logprobs, labels, lengths, label_lengths, blank, reduction="none", zero_infinity=True
    )
    inside = length_mask(label_lengths, labels.shape[1])
    repeats = ((labels[:, 1:] == labels[:, :-1]) & inside[:, 1:]).sum(1)
    fits = lengths >= label_lengths + repeats
    total = (label_lengths * fits).sum().clamp(min=1)
    return torch.where(fits, each, torch.zeros_like(each)).sum() / total, fits
