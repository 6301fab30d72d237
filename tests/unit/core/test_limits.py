from __future__ import annotations

from typing import Any

import pytest

from speechadapt.core.limits import Range


@pytest.mark.parametrize(
    ("limits", "value", "problem"),
    [
        (Range(0.0, 1.0), 0.0, None),
        (Range(0.0, 1.0), 1.5, "must be between 0 and 1, got 1.5"),
        (Range(above=0.0), 0.0, "must be above 0, got 0"),
        (Range(above=0.0, most=2.0), 3, "must be above 0 and at most 2, got 3"),
        (Range(1.0), 0, "must be 1 or more, got 0"),
        (Range(most=2.0), 3.0, "must be at most 2, got 3"),
        (Range(), float("nan"), "must be a finite number, got nan"),
        (Range(), (1.0, 2.0), None),
        (Range(), (2.0, 1.0), r"must go from the lower to the higher value, got [2.0, 1.0]"),
        (Range(0.0, 1.0), (0.5, 1.5), r"must be between 0 and 1, got [0.5, 1.5]"),
    ],
)
def test_a_range_says_what_is_wrong_with_a_value(
    limits: Range, value: Any, problem: str | None
) -> None:
    assert limits.problem(value) == problem
