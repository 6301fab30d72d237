"""Modules a foreign file holds whole: norms become trained norms, everything else is a head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from speechadapt.adapters.lowrank import bias_of, weight_of
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.base import Encoder


def split_whole(
    encoder: Encoder, tensors: Mapping[str, Tensor], roles: Mapping[str, str], folder: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tell norms of the encoder from the tensors of a head.

    Args:
        encoder: The encoder.
        tensors: Tensors of modules saved whole, by name.
        roles: Role by module path, for the modules of the encoder.
        folder: The file, for the message.

    Returns:
        Gain and shift by `<role>:<parameter>`, and the head's tensors by their names.

    Raises:
        CheckpointError: A module of the encoder that is no norm was saved whole, or a norm cannot
            be written as a change of the frozen one.
    """
    norms: dict[str, dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    for name, value in tensors.items():
        path, _, parameter = name.rpartition(".")
        if path in roles:
            norms.setdefault(roles[path], {})[parameter] = value
        else:
            head[name] = value
    changes: dict[str, Tensor] = {}
    for role, saved in norms.items():
        changes |= _norm_change(encoder, role, saved, folder)
    return changes, head


def _norm_change(
    encoder: Encoder, role: str, saved: Mapping[str, Tensor], folder: Path
) -> dict[str, Tensor]:
    site = encoder.site(role)
    if site.kind != "LayerNorm" or set(saved) != {"weight", "bias"}:
        raise CheckpointError(
            f"'{folder}' holds '{role}' whole ({', '.join(sorted(saved))}), which replaces the "
            "frozen module. Only layer norms saved whole can be imported."
        )
    module = encoder.model.get_submodule(site.write)
    frozen = weight_of(module).detach().double()
    shift = bias_of(module)
    assert shift is not None
    if saved["weight"].shape != frozen.shape:
        raise CheckpointError(
            f"'{folder}' was made for another encoder: its norm '{role}' has "
            f"{list(saved['weight'].shape)} values, this {encoder.family} needs "
            f"{list(frozen.shape)}. Give the base it was trained on."
        )
    if bool((frozen == 0).any()):
        raise CheckpointError(
            f"'{folder}' holds the norm '{role}' whole, but some of this base's weights there are "
            "zero, where no gain leads to the saved ones. Merge it with the tool that made it."
        )
    ratio = saved["weight"].double() / frozen
    moved = saved["bias"].double() - shift.detach().double() * ratio
    return {
        f"{role}:gain": (ratio - 1).to(torch.float32),
        f"{role}:shift": moved.to(torch.float32),
    }
