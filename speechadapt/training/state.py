"""Checkpoints of a run: whole or absent, no pickle, enough for an exact resume.

A checkpoint folder `step-<n>` holds `model.safetensors` (trained and frozen tensors of the
objective), `optimizer.safetensors`, `average.safetensors` where weights are averaged, and
`state.json`. The folder is filled under another name and renamed when it is whole; the file
`latest` then names it. Random states are not stored: every step seeds its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import atomic_write_text, sync_file, sync_folder


def save_checkpoint(
    folder: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None,
    state: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Write `folder/step-<step>` and point `latest` at it; older checkpoints beyond `keep` go.

    Args:
        folder: The run's checkpoint folder.
        step: Optimiser steps done.
        model: State dict of the objective.
        optimizer: Its per-parameter tensors are stored.
        average: Averaged weights, if any.
        state: JSON values to store beside them.
        keep: Checkpoints to keep.
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f".tmp-{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    moments = _optimizer_tensors(optimizer)
    save_file(_plain(model), temporary / "model.safetensors")
    save_file(moments, temporary / "optimizer.safetensors")
    if average is not None:
        save_file(_plain(average), temporary / "average.safetensors")
    counted = {"step": step, "optimizer_tensors": len(moments), **state}
    (temporary / "state.json").write_text(json.dumps(counted, indent=2))
    for path in temporary.iterdir():
        sync_file(path)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    sync_folder(folder)
    atomic_write_text(folder / "latest", target.name)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint under `folder`, or None.

    Where `latest` names a folder that is gone, the newest one that is there is taken.
    """
    pointer = folder / "latest"
    if pointer.is_file():
        target = folder / pointer.read_text(encoding="utf-8").strip()
        if (target / "state.json").is_file():
            return target
    whole = [path for path in folder.glob("step-*") if (path / "state.json").is_file()]
    return max(whole, default=None)


def load_checkpoint(
    target: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    """Restore a checkpoint into `model` and `optimizer`.

    Returns:
        The stored JSON state and the averaged weights (None where there are none).

    Raises:
        CheckpointError: A file is missing or cut short, or tensors are missing, in excess or of
            another shape; nothing is restored then.
    """
    state: dict[str, Any] = json.loads((target / "state.json").read_text(encoding="utf-8"))
    own = model.state_dict()
    stored = _read(target / "model.safetensors")
    _must_fit(stored, own, f"{target.name}/model.safetensors")
    average_path = target / "average.safetensors"
    average = _read(average_path) if average_path.is_file() else None
    if average is not None:
        _must_fit(average, own, f"{target.name}/average.safetensors")
    moments = _read(target / "optimizer.safetensors")
    if len(moments) != state.get("optimizer_tensors", len(moments)):
        raise CheckpointError(
            f"{target.name}/optimizer.safetensors holds {len(moments)} tensors; "
            f"{state['optimizer_tensors']} were written."
        )
    model.load_state_dict(stored)
    _restore_optimizer(optimizer, moments)
    return state, average


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path.parent.name}/{path.name} cannot be read: {error}.") from error


def _must_fit(stored: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> None:
    missing, excess = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    if missing or excess:
        raise CheckpointError(
            f"{name} does not fit the model: missing {missing[:3]}, in excess {excess[:3]}."
        )
    for key, tensor in own.items():
        if stored[key].shape != tensor.shape:
            raise CheckpointError(
                f"{name} does not fit the model: '{key}' is {tuple(stored[key].shape)} in the "
                f"file and {tuple(tensor.shape)} in the model."
            )


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"{index}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous().clone()
    return tensors


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
