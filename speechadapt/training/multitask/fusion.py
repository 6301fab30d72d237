"""Putting on the encoder what a run on several tasks trains: one adapter, or several fused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.adapters.composed import compose
from speechadapt.adapters.composition import Composed, Single
from speechadapt.adapters.handle import Handle, attachment
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.base import Encoder
from speechadapt.models.adapted import Head, read_head
from speechadapt.training.multitask.config import Config

NAME = "fusion"
# Keeps logarithms finite; a larger one would leave what is sure and wrong without gradient.
TINIEST = 1e-30


def composition_of(config: Config) -> Composed:
    """Return the composition of a run that fuses."""
    parts = tuple(Single(name) for name in config.parts)
    return Composed("fuse", parts, settings=dict(config.fusion))


def attach_fusion(encoder: Encoder, config: Config) -> Handle:
    """Attach the parts of a fusion and the fusion, which acts.

    Args:
        encoder: The encoder.
        config: A run with parts.

    Returns:
        The fusion; its parts take gradients where they are to learn.

    Raises:
        CheckpointError: A part is damaged or belongs to another base.
        SiteError: The parts stand at unlike roles.
    """
    for name, folder in config.parts.items():
        if folder:
            store.load(encoder, Path(folder).expanduser(), name=name, activate=False)
        else:
            attach(
                encoder,
                config.method,
                name=name,
                config=config.adapter,
                roles=config.roles or None,
                train_norms=config.train_norms,
                activate=False,
            )
    for name in config.parts:
        attachment(encoder, name).module.requires_grad_(config.learns == "joint")
    compose(encoder, composition_of(config), name=NAME)
    return attachment(encoder, NAME)


def members(encoder: Encoder, config: Config) -> dict[str, nn.Module]:
    """Return the parts of a fusion that learn with it, by a name that a module may have.

    Args:
        encoder: With the fusion attached.
        config: The run.
    """
    if not config.fuses or config.learns != "joint":
        return {}
    return {name.replace(".", "/"): attachment(encoder, name).module for name in config.parts}


def routing_loss(
    sites: Iterable[Float[Tensor, "batch parts"]], own: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Return the cross-entropy in nats of the weights with the part that each row should have.

    Args:
        sites: The weights of every row at each site, after their softmax.
        own: The number of each row's own part.
    """
    chosen = [weights.gather(1, own[:, None]).clamp(min=TINIEST).log() for weights in sites]
    return -torch.stack(chosen).mean()


def begin_from(handle: Handle, folder: Path) -> list[str]:
    """Copy a saved adapter's tensors into those of the same name and shape.

    Args:
        handle: What is to begin there.
        folder: The saved adapter's folder.

    Returns:
        The names of the tensors taken.

    Raises:
        CheckpointError: It belongs to another base, or not one of its tensors fits.
    """
    stored = store.read(folder)
    store.check_base(handle.encoder, stored)
    own = handle.module.tensors()
    taken = [
        key
        for key, tensor in own.items()
        if key in stored.tensors and stored.tensors[key].shape == tensor.shape
    ]
    if not taken:
        raise CheckpointError(
            f"start={folder} was given, but none of its {len(stored.tensors)} tensors has name and "
            f"shape of one of {handle.method_name}. Name a run of a like adapter."
        )
    with torch.no_grad():
        for key in taken:
            own[key].copy_(stored.tensors[key])
    return taken


def take_head(encoder: Encoder, folder: Path) -> tuple[Head, nn.Linear]:
    """Return a saved head, frozen, with what reads it.

    Args:
        encoder: What it must have been trained on.
        folder: A folder with a head, with or without an adapter.

    Raises:
        CheckpointError: There is no head, or it belongs to another base.
    """
    stored = store.read(folder)
    store.check_base(encoder, stored)
    described = read_head(stored)
    if described is None:
        raise CheckpointError(
            f"head={folder} was given, but that adapter was saved without a head. Name the folder "
            "of a run with arm=head."
        )
    head = nn.Linear(encoder.dim, len(described.alphabet))
    tensors: Mapping[str, Any] = stored.head
    store.fill(head.state_dict(keep_vars=True), tensors, folder / store.WEIGHTS, "the head")
    return described, head.requires_grad_(False)
