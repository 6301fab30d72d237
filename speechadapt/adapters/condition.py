"""Conditions: what a caller tells adapters about its rows (`task`, `language`, `memory`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from speechadapt.core.errors import ConfigError, ShapeError


def check_conditions(
    needs: Mapping[str, frozenset[str]], names: Iterable[str], conditions: Mapping[str, Any]
) -> None:
    """Refuse to run adapters without the conditions they read.

    Args:
        needs: Names of the conditions that each attachment reads.
        names: The attachments that are to act.
        conditions: What the caller gave.

    Raises:
        ConfigError: A condition is missing; the message names it and the adapter.
    """
    for name in names:
        missing = sorted(needs.get(name, frozenset()) - conditions.keys())
        if missing:
            raise ConfigError(
                f"adapter '{name}' needs the condition '{missing[0]}', given were "
                f"{', '.join(sorted(conditions)) or 'none'}. "
                f"Use active(encoder, ..., conditions={{'{missing[0]}': ...}})."
            )


def rows_of(conditions: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Return the conditions of some rows.

    Args:
        conditions: Values by name: a tensor with one entry per row on its first axis, or a
            sequence with one per row.
        rows: Indices of the rows.

    Raises:
        ShapeError: A condition has fewer entries than rows are asked for.
    """
    return {name: _some(name, value, rows) for name, value in conditions.items()}


def repeated(conditions: Mapping[str, Any], times: int) -> Mapping[str, Any]:
    """Return the conditions of rows each of which stands in the batch several times, side by side.

    Args:
        conditions: Values by name, as for `rows_of`.
        times: How often each row stands there.
    """
    if times == 1:
        return conditions
    return {
        name: _some(name, value, [row for row in range(len(value)) for _ in range(times)])
        for name, value in conditions.items()
    }


def _some(name: str, value: Any, rows: Sequence[int]) -> Any:
    if len(value) <= max(rows, default=-1):
        raise ShapeError(
            f"condition '{name}' has {len(value)} entries, but the batch has a row "
            f"{max(rows)}. Give one entry per row."
        )
    if isinstance(value, Tensor):
        return value.index_select(0, torch.tensor(list(rows), device=value.device))
    return [value[row] for row in rows]
