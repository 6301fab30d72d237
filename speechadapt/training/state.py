"""Checkpoints of a run: whole or absent, no pickle, enough for an exact resume.

A checkpoint folder `step-<n>` holds `model.safetensors` (trained and frozen tensors of the
objective), `optimizer.safetensors`, `average.safetensors` where weights are averaged, and
`state.json`. The file `latest` is written last and names the newest whole checkpoint. Random states
are not stored: every step seeds its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import atomic_write_text, sync_folder


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
    save_file(_plain(model), temporary / "model.safetensors")
    save_file(_optimizer_tensors(optimizer), temporary / "optimizer.safetensors")
    if average is not None:
        save_file(_plain(average), temporary / "average.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": step, **state}, indent=2))
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    sync_folder(folder)
    atomic_write_text(folder / "latest", target.name)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint under `folder`, or None."""
    pointer = folder / "latest"
    if not pointer.is_file():
        return None
    target = folder / pointer.read_text().strip()
    return target if (target / "state.json").is_file() else None


def load_checkpoint(
    target: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    """Restore a checkpoint into `model` and `optimizer`.

    Returns:
        The stored JSON state and the averaged weights (None where there are none).

    Raises:
        CheckpointError: Tensors are missing or in excess.
    """
    stored = load_file(target / "model.safetensors")
    report = model.load_state_dict(stored, strict=False)
    if report.missing_keys or report.unexpected_keys:
        raise CheckpointError(
            f"checkpoint {target.name} does not fit the model: missing "
            f"{report.missing_keys[:3]}, in excess {report.unexpected_keys[:3]}."
        )
    _restore_optimizer(optimizer, load_file(target / "optimizer.safetensors"))
    average_path = target / "average.safetensors"
    average = load_file(average_path) if average_path.is_file() else None
    state: dict[str, Any] = json.loads((target / "state.json").read_text())
    return state, average


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
