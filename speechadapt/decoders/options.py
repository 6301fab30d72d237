"""Reading a decoder's frozen options from the names a user typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from speechadapt.core.errors import ConfigError, near_misses

Options = TypeVar("Options")


def parse_options(kind: type[Options], values: Mapping[str, Any], owner: str) -> Options:
    """Build frozen options from names and values.

    Args:
        kind: The options' dataclass; it checks its own ranges.
        values: Option by name; what is not named keeps its default.
        owner: The decoder's name, for messages.

    Raises:
        ConfigError: A name is unknown; all such names are reported together, with near misses.
    """
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    problems = [
        f"{owner} has no option '{name}'.{near_misses(name, known)}"
        for name in sorted(set(values) - known)
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return kind(**values)
