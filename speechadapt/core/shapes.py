"""Shape annotations used across the package.

Checked while the tests run (jaxtyping and beartype), plain hints otherwise. Single-axis shapes
start with a space so that linters do not take them for forward references.
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Tensor

Waveform: TypeAlias = Float[Tensor, " samples"]
Clip: TypeAlias = Float[Tensor, " _"]  # one of several waveforms of unrelated lengths
Waveforms: TypeAlias = Float[Tensor, "batch samples"]
Frames: TypeAlias = Float[Tensor, "batch frames dim"]
Lengths: TypeAlias = Int[Tensor, " batch"]
Tokens: TypeAlias = Int[Tensor, "batch tokens"]
Mask: TypeAlias = Bool[Tensor, "batch frames"]


def length_mask(lengths: Lengths, size: int) -> Bool[Tensor, "batch size"]:
    """Mark the valid positions of each row.

    Args:
        lengths: Valid positions per row.
        size: Length of the padded axis.

    Returns:
        True where the position is valid.
    """
    import torch

    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def padding_mask(lengths: Lengths, size: int) -> Bool[Tensor, "batch size"] | None:
    """Mark the valid positions of each row, where any row has others.

    Without a mask attention and convolutions take their shorter way, which counts most for single
    clips. A traced graph keeps the mask, since it must hold for any lengths.

    Args:
        lengths: Valid positions per row.
        size: Length of the padded axis.

    Returns:
        True where the position is valid; None where all are.
    """
    import torch

    if torch.compiler.is_compiling() or bool((lengths < size).any()):
        return length_mask(lengths, size)
    return None
