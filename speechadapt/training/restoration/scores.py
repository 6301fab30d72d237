"""How near cleaned features are to clean ones, over many recordings."""

from __future__ import annotations

import torch
from torch import Tensor

from speechadapt.core.shapes import Frames, Lengths
from speechadapt.restoration.cleaner_loss import CleanerLossConfig, cleaner_errors


class FeatureScores:
    """Sums over recordings.

    `relative_l1` is the sum of absolute errors over the sum of absolute clean features.
    `variance_ratio` is the variance over time of the predicted features over that of the clean
    ones, summed over dimensions: predictions that shrink to the mean lie below 1.

    Args:
        config: Weights of the loss.
    """

    def __init__(self, config: CleanerLossConfig) -> None:
        self.config = config
        self.rows = 0
        self.terms: dict[str, float] = {}
        self.absolute = self.size = 0.0
        self.variances: list[float] = [0.0, 0.0]

    def add(self, predicted: Frames, clean: Frames, lengths: Lengths) -> None:
        """Add rows of one batch.

        Args:
            predicted: Features to score.
            clean: Features of the clean signals.
            lengths: Valid frames per row.
        """
        errors = cleaner_errors(predicted, clean, lengths)
        rows = len(lengths)
        self.rows += rows
        for name, term in {"loss": errors.weighted(self.config), **vars(errors)}.items():
            self.terms[name] = self.terms.get(name, 0.0) + float(term) * rows
        for row, count in enumerate(lengths.tolist()):
            guess, target = predicted[row, :count].float(), clean[row, :count].float()
            self.absolute += float((guess - target).abs().sum())
            self.size += float(target.abs().sum())
            for place, part in enumerate((guess, target)):
                self.variances[place] += _spread(part)

    def figures(self) -> dict[str, float]:
        """Return the means over rows, `relative_l1` and `variance_ratio`; NaN without rows."""
        if not self.rows:
            return dict.fromkeys(("loss", "relative_l1", "variance_ratio"), float("nan"))
        means = {name: total / self.rows for name, total in self.terms.items()}
        return means | {
            "relative_l1": self.absolute / max(self.size, 1e-12),
            "variance_ratio": self.variances[0] / max(self.variances[1], 1e-12),
        }


def _spread(frames: Tensor) -> float:
    return float(torch.square(frames - frames.mean(0)).sum())
