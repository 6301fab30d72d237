"""Reading adapter files that other tools wrote, without trusting them.

Safetensors are read as they are. A pickle is read only where the caller asked for it, and then by
torch's restricted reader, which runs no code from the file. Whatever is truncated, not a number or
not a tensor is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechadapt.core.errors import CheckpointError, near_misses
from speechadapt.core.files import read_json


def read_settings(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file.

    Args:
        path: The file.

    Raises:
        CheckpointError: It is missing, not JSON, or no object.
    """
    if not path.is_file():
        found = [one.name for one in path.parent.glob("*")] if path.parent.is_dir() else []
        raise CheckpointError(
            f"'{path.name}' was looked for in '{path.parent}', which does not hold it."
            f"{near_misses(path.name, found)}"
        )
    try:
        settings = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' was to be read as JSON, but: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(
            f"'{path}' was to hold a JSON object, but holds a {type(settings).__name__}."
        )
    return settings


def read_weights(
    folder: Path, safe: str, pickled: str, allow_pickle: bool = False
) -> dict[str, Tensor]:
    """Return the tensors of an adapter folder.

    Args:
        folder: The adapter folder.
        safe: Name of its safetensors file, which wins where both are there.
        pickled: Name of its pickle.
        allow_pickle: Whether the pickle may be read where there are no safetensors.

    Raises:
        CheckpointError: Neither is there, only the pickle is and it was not allowed, or the file
            cannot be used.
    """
    if (folder / safe).is_file():
        return read_safetensors(folder / safe)
    if not (folder / pickled).is_file():
        raise CheckpointError(
            f"'{folder}' was to be read as an adapter folder, but holds neither {safe} nor "
            f"{pickled}."
        )
    if not allow_pickle:
        raise CheckpointError(
            f"'{folder}' holds no {safe}, only the pickle {pickled}, which is not read unasked. "
            "If you trust where it comes from, allow pickles (--allow-pickle); or have the tool "
            "that wrote it save safetensors."
        )
    return read_pickle(folder / pickled)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is truncated or damaged, or holds a value that is not finite.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"'{path}' was to be read as safetensors, but is damaged or cut short: {error}. "
            "Copy or download it again."
        ) from error
    return _finite(tensors, path)


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickle, running none of the code it may hold.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is damaged, holds anything but tensors by name, or a value that is
            not finite.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle decides itself what reading it raises
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"'{path}' was to be read as a pickle of tensors alone, but is damaged or holds "
            f"something else ({type(error).__name__}: {reason}). Nothing in it was run."
        ) from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise CheckpointError(
            f"'{path}' was to hold tensors by name, but holds a {type(found).__name__} of "
            "something else."
        )
    return _finite({name: value.detach() for name, value in found.items()}, path)


def _finite(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    bad = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(
            f"'{path}' holds {len(bad)} tensors with values that are not finite, the first being "
            f"'{bad[0]}'. Save the adapter from a step before its training broke."
        )
    if not tensors:
        raise CheckpointError(f"'{path}' was to hold an adapter, but holds no tensor.")
    return tensors
