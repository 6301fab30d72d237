"""Reading a few tensors out of a transformers model folder."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from speechadapt.core.errors import CheckpointError


def read_tensors(folder: Path, prefix: str) -> dict[str, Tensor]:
    """Read the tensors whose names begin with `prefix`, in the dtype they are stored in.

    Args:
        folder: Holds `model.safetensors`, or shards and their index.
        prefix: Start of the names wanted.

    Raises:
        CheckpointError: The folder has no safetensors weights, or none by such a name.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({file for name, file in places.items() if name.startswith(prefix)})
    else:
        files = ["model.safetensors"]
    found: dict[str, Tensor] = {}
    for file in files:
        if not (folder / file).is_file():
            raise CheckpointError(
                f"{folder} has no {file}; weights are read from safetensors files only."
            )
        try:
            with safe_open(folder / file, framework="pt") as handle:
                for name in handle.keys():
                    if name.startswith(prefix):
                        found[name] = handle.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{folder / file} is damaged: {error}.") from error
    if not found:
        raise CheckpointError(f"{folder} holds no weights named '{prefix}*'.")
    return found
