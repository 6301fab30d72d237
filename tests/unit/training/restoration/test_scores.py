"""Scores of features over many recordings, against sums by hand."""

from __future__ import annotations

import math

import pytest
import torch

from speechadapt.restoration.cleaner_loss import CleanerLossConfig
from speechadapt.training.restoration.scores import FeatureScores

CLEAN = torch.tensor([[[1.0], [3.0], [9.0]], [[-2.0], [0.0], [4.0]]])
LENGTHS = torch.tensor([2, 3])


def test_sums_are_over_valid_frames_of_all_batches() -> None:
    guess = CLEAN + torch.tensor([[[1.0], [0.0], [50.0]], [[0.0], [1.0], [-1.0]]])
    scores = FeatureScores(CleanerLossConfig())
    for row in range(2):
        scores.add(guess[row : row + 1], CLEAN[row : row + 1], LENGTHS[row : row + 1])
    found = scores.figures()
    assert found["relative_l1"] == pytest.approx(3 / 10)
    guessed = (2.5 - 2) ** 2 * 2 + ((-2 - 2 / 3) ** 2 + (1 - 2 / 3) ** 2 + (3 - 2 / 3) ** 2)
    target = 2 + ((-2 - 2 / 3) ** 2 + (2 / 3) ** 2 + (4 - 2 / 3) ** 2)
    assert found["variance_ratio"] == pytest.approx(guessed / target, rel=1e-5)
    assert found["absolute"] == pytest.approx((0.5 + 2 / 3) / 2)


def test_shrinking_to_the_mean_shows() -> None:
    scores = FeatureScores(CleanerLossConfig())
    means = CLEAN.clone()
    means[0, :2] = CLEAN[0, :2].mean()
    means[1] = CLEAN[1].mean()
    scores.add(means, CLEAN, LENGTHS)
    assert scores.figures()["variance_ratio"] == pytest.approx(0.0, abs=1e-9)


def test_no_recordings_have_no_scores() -> None:
    assert all(math.isnan(value) for value in FeatureScores(CleanerLossConfig()).figures().values())
