"""The loss between predicted and clean features of one frozen encoder.

    L = mean |S - P| + mean (S - P)^2 + sum (S - P)^2 / sum S^2

S are the clean features and P the predicted ones; the last term is spectral convergence. Every term
is taken over the valid frames of a row and then averaged over the rows, so neither padding nor the
rest of a batch changes what a row adds.

Source: Miipher, https://arxiv.org/abs/2303.01664, and Miipher-2, https://arxiv.org/abs/2505.04457.
Differs: means in the first two terms where the first paper prints sums, which would outgrow the
    third with the length of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from speechadapt.core.limits import NotNegative
from speechadapt.core.shapes import Frames, Lengths, length_mask

_LEAST = 1e-8


@dataclass(frozen=True)
class CleanerLossConfig:
    """Weights of the terms.

    Args:
        absolute: Of the mean absolute error.
        squared: Of the mean squared error.
        convergence: Of spectral convergence.
    """

    absolute: NotNegative = 1.0
    squared: NotNegative = 1.0
    convergence: NotNegative = 1.0


@dataclass(frozen=True)
class CleanerErrors:
    """The terms, each averaged over the rows.

    Args:
        absolute: Mean absolute error.
        squared: Mean squared error.
        convergence: Squared error as a share of the clean features' energy.
    """

    absolute: Float[Tensor, ""]
    squared: Float[Tensor, ""]
    convergence: Float[Tensor, ""]

    def weighted(self, config: CleanerLossConfig) -> Float[Tensor, ""]:
        """Return the loss.

        Args:
            config: Weights.
        """
        return (
            config.absolute * self.absolute
            + config.squared * self.squared
            + config.convergence * self.convergence
        )


def cleaner_errors(predicted: Frames, clean: Frames, lengths: Lengths) -> CleanerErrors:
    """Compare features, in float32.

    Args:
        predicted: What the cleaner made of the degraded signal.
        clean: Features of the clean signal.
        lengths: Valid frames per row, at least one.
    """
    valid = length_mask(lengths, clean.shape[1])[:, :, None].float()
    target = clean.float() * valid
    gap = (target - predicted.float() * valid) * valid
    counts = lengths.float() * clean.shape[2]
    squares = gap.square().sum((1, 2))
    energy = target.square().sum((1, 2)).clamp(min=_LEAST)
    return CleanerErrors(
        absolute=(gap.abs().sum((1, 2)) / counts).mean(),
        squared=(squares / counts).mean(),
        convergence=(squares / energy).mean(),
    )
