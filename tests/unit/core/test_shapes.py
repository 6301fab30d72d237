"""Masks mark valid positions with True, and shapes are checked where tests run."""

from __future__ import annotations

import pytest
import torch

from speechadapt.core.shapes import length_mask, padding_mask


def test_a_mask_is_true_up_to_the_length() -> None:
    mask = length_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.tolist() == [[False] * 3, [True, True, False], [True] * 3]


def test_shape_annotations_are_checked_under_pytest() -> None:
    with pytest.raises(Exception, match="lengths"):
        length_mask(torch.zeros(2, 2, dtype=torch.int64), 3)


def test_no_mask_is_made_where_nothing_is_padded() -> None:
    assert padding_mask(torch.tensor([3, 3]), 3) is None
    made = padding_mask(torch.tensor([3, 2]), 3)
    assert made is not None
    assert made.tolist() == [[True, True, True], [True, True, False]]


def test_a_traced_graph_keeps_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    made = padding_mask(torch.tensor([3, 3]), 3)
    assert made is not None
    assert bool(made.all())
