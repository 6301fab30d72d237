"""Ranges of settings, written into the annotations of the dataclasses that hold them.

A field `rate: Probability = 0.1` stays a float for Python and mypy; whoever fills dataclasses from
outside (the configuration layer) reads the range off the annotation and reports what lies outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias


@dataclass(frozen=True)
class Range:
    """Numbers that a setting may take; of a pair, both ends, which must also be in order.

    Args:
        least: Smallest value allowed.
        most: Largest value allowed.
        above: Values must be larger than this.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    def __str__(self) -> str:
        """Say the range in words."""
        low = f"above {self.above:g}" if self.above > -math.inf else ""
        low = f"{self.least:g} or more" if self.least > -math.inf else low
        if self.most == math.inf:
            return low or "a finite number"
        if self.least > -math.inf:
            return f"between {self.least:g} and {self.most:g}"
        return f"{low} and at most {self.most:g}" if low else f"at most {self.most:g}"

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with `value`: a number, or a pair of them; None where nothing is."""
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts:
            good = math.isfinite(part) and self.least <= part <= self.most and part > self.above
            if not good:
                return f"must be {self}, got {_shown(value)}"
        if list(parts) != sorted(parts):
            return f"must go from the lower to the higher value, got {_shown(value)}"
        return None


Probability: TypeAlias = Annotated[float, Range(0.0, 1.0)]
Positive: TypeAlias = Annotated[float, Range(above=0.0)]
NotNegative: TypeAlias = Annotated[float, Range(0.0)]
Count: TypeAlias = Annotated[int, Range(1.0)]
CountOrNone: TypeAlias = Annotated[int, Range(0.0)]
Interval: TypeAlias = Annotated[tuple[float, float], Range()]
PositiveInterval: TypeAlias = Annotated[tuple[float, float], Range(above=0.0)]
NotNegativeInterval: TypeAlias = Annotated[tuple[float, float], Range(0.0)]


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else f"{value:g}"
