"""Adapters one after the other: each reads what the one before it left.

Source: https://arxiv.org/abs/2005.00052 section 3 (a language's adapter below a task's)
Differs: at a site that only one of them adapts, it acts alone; nothing asks them to be alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from speechadapt.adapters.kinds import Kind, Request
from speechadapt.adapters.routing import Names


@dataclass(frozen=True)
class StackConfig:
    """A stack has no settings."""


def build(request: Request) -> Names:
    """Return the names of all parts in order; nothing is attached."""
    return tuple(name for part in request.parts for name in part.names)


KIND = Kind(
    config=StackConfig,
    build=build,
    source="https://arxiv.org/abs/2005.00052 section 3",
    least=1,
)
