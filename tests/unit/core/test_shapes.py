"""Masks mark valid positions with True, and shapes are checked where tests run."""

from __future__ import annotations

import pytest
import torch

from speechadapt.core.shapes import length_mask


def test_a_mask_is_true_up_to_the_length() -> None:
    mask = length_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.tolist() == [[False] * 3, [True, True, False], [True] * 3]


def test_shape_annotations_are_checked_under_pytest() -> None:
    with pytest.raises(Exception, match="lengths"):
        length_mask(torch.zeros(2, 2, dtype=torch.int64), 3)
