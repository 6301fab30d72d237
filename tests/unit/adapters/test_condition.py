from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.condition import check_conditions, repeated, rows_of
from speechadapt.core.errors import ConfigError, ShapeError


def test_conditions_are_split_by_row():
    conditions = {"task": torch.tensor([3, 4, 5]), "language": ["de", "es", "en"]}
    part = rows_of(conditions, [2, 0])
    assert part["task"].tolist() == [5, 3]
    assert part["language"] == ["en", "de"]


def test_a_row_that_is_repeated_takes_its_conditions_along():
    conditions = {"task": torch.tensor([3, 4]), "language": ["de", None]}
    twice = repeated(conditions, 2)
    assert twice["task"].tolist() == [3, 3, 4, 4]
    assert twice["language"] == ["de", "de", None, None]
    assert repeated(conditions, 1) is conditions


def test_too_few_entries_are_refused():
    with pytest.raises(ShapeError, match="'task' has 2 entries, but the batch has a row 2"):
        rows_of({"task": [0, 1]}, [0, 2])


def test_only_what_acts_needs_its_conditions():
    needs = {"german": frozenset({"task"}), "other": frozenset({"memory"})}
    check_conditions(needs, ["german"], {"task": [0]})
    check_conditions(needs, [], {})
    with pytest.raises(ConfigError, match=r"'other' needs the condition 'memory', given were task"):
        check_conditions(needs, ["german", "other"], {"task": [0]})
