"""An adapter that another tool saved, in the terms of this package, and how it gets attached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechadapt.adapters import attach
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.interop.keys import role_patterns
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.base import Encoder

_SHOWN = 3


@dataclass(frozen=True)
class Foreign:
    """What a foreign file says, translated.

    Args:
        source: The format it came in (`peft`, `adapterhub`, `mms`).
        folder: Where it was read.
        method: Name of the method that computes the same.
        config: That method's settings.
        roles: Roles it adapts, in full.
        tensors: Every tensor of the adapters, as files here name them (`<role>:<parameter>`).
        train_norms: Which norms the tensors cover besides (`none` or `all`).
        head: Tensors of a task head saved along, by their own names.
        left_out: Names in the file that lie outside the encoder and were not read.
        notes: What else is worth keeping about it.
    """

    source: str
    folder: Path
    method: str
    config: Mapping[str, Any]
    roles: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    train_norms: str = "none"
    head: Mapping[str, Tensor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def install(encoder: Encoder, foreign: Foreign, name: str, activate: bool = True) -> Handle:
    """Attach a translated adapter; on any error the encoder is as it was.

    Args:
        encoder: The encoder it was made for.
        foreign: What was read.
        name: What to call the attachment.
        activate: Whether it acts, alone, wherever no `active` says otherwise.

    Returns:
        The attachment; its `notes["training"]` say where it came from.

    Raises:
        CheckpointError: A tensor is missing, unknown or of another shape than the encoder's.
        ConfigError: Settings are out of range, or the name is taken.
        SiteError: The method cannot stand at one of the roles.
    """
    handle = attach.build(
        encoder,
        foreign.method,
        name=name,
        config=dict(foreign.config),
        roles=role_patterns(encoder, foreign.roles),
        train_norms=foreign.train_norms,
    )
    attach.prepare(handle)
    fill(handle, foreign.tensors, str(foreign.folder))
    handle.module.eval()
    imported = {"format": foreign.source, "left_out": list(foreign.left_out), **foreign.notes}
    handle.notes["training"] = {"imported": imported}
    attach.install(handle, activate=activate)
    return handle


@torch.no_grad()
def fill(handle: Handle, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into an attachment's adapters; norms that are not named stay as they are.

    Args:
        handle: The attachment, not yet in place.
        tensors: By `<role>:<parameter>`.
        where: The file they came from, for the message.

    Raises:
        CheckpointError: A tensor is missing, unknown or of another shape.
    """
    own = handle.module.tensors()
    norms = {site.role for site in handle.norm_sites}
    missing = [key for key in own if key not in tensors and key.split(":")[0] not in norms]
    unknown = [key for key in tensors if key not in own]
    for said, keys in (("lacks", missing), ("has beyond what the method takes", unknown)):
        if keys:
            raise CheckpointError(
                f"'{where}' was to be attached as '{handle.method_name}', but {said} "
                f"{len(keys)} tensors, such as {', '.join(keys[:_SHOWN])}."
            )
    for key, value in tensors.items():
        if own[key].shape != value.shape:
            raise CheckpointError(
                f"'{where}' was made for another encoder: '{key}' is {list(value.shape)} there, "
                f"this {handle.encoder.family} needs {list(own[key].shape)}. Give the base it was "
                "trained on."
            )
    for key, value in tensors.items():
        own[key].copy_(value)


def refuse_left_out(left_out: list[str], where: Path, encoder_only: bool) -> None:
    """Refuse to drop what lies outside the encoder, unless that was asked for.

    Args:
        left_out: Names in the file outside the encoder.
        where: The file.
        encoder_only: Whether to leave them out.

    Raises:
        CheckpointError: There are such names and they were not to be left out.
    """
    if left_out and not encoder_only:
        raise CheckpointError(
            f"'{where}' also adapts modules outside the encoder ({len(left_out)} tensors, such as "
            f"'{left_out[0]}'), which an encoder's adapter cannot hold. Import the encoder's part "
            "alone (--encoder-only), knowing that the result is not the whole."
        )
