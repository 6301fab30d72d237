"""What a recording sounds like to the frozen encoder, and what an adapter was trained on.

A recording is described by the mean and the standard deviation, over its frames, of the states
after one layer of the encoder, no adapter acting. An adapter's card holds the centroid and the
spread of these over its training recordings, a few of them as examples, and what it is in words.

Source: https://arxiv.org/abs/2404.10681 (Stylus: adapters described, retrieved and weighted)
Differs: recordings stand in for prompts and statistics of speech for descriptions of images; no
    language model composes anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from speechadapt.adapters.attach import active
from speechadapt.adapters.handle import base_of
from speechadapt.adapters.store import read_tensors
from speechadapt.core.errors import CheckpointError, ConfigError, SiteError
from speechadapt.core.files import atomic_write, atomic_write_json
from speechadapt.core.shapes import Clip
from speechadapt.encoders.base import Encoder

CARD = "retrieval_card.json"
CARD_WEIGHTS = "retrieval_card.safetensors"
EXAMPLES = 64

Described = Float[Tensor, "clips size"]


@dataclass(frozen=True)
class RetrievalCard:
    """What an adapter was trained on, as the frozen encoder hears it.

    Args:
        name: The adapter's name.
        text: What it is for, in words.
        layer: The layer that was looked at, counted from 0.
        base: Fingerprint of the encoder's weights.
        count: Recordings that were described.
        centroid: Their mean.
        spread: Their standard deviation.
        examples: Some of them, evenly taken.
    """

    name: str
    text: str
    layer: int
    base: str
    count: int
    centroid: Float[Tensor, " size"]
    spread: Float[Tensor, " size"]
    examples: Float[Tensor, "examples size"]


class _Enough(Exception):  # noqa: N818 - nothing went wrong
    """Ends a call of the encoder once its layer has run."""


def layer_of(encoder: Encoder, layer: int | None) -> int:
    """Return the layer to look at; None takes one third of the way up.

    Args:
        encoder: The encoder.
        layer: A number from 0.

    Raises:
        SiteError: The encoder has no such layer.
    """
    count = sum(role.endswith(".end") for role in encoder.sites)
    if layer is None:
        return count // 3
    if not 0 <= layer < count:
        raise SiteError(
            f"layer {layer} was to be looked at, but {encoder.family} has the layers 0 to "
            f"{count - 1} here."
        )
    return layer


@torch.no_grad()
def describe_clips(encoder: Encoder, clips: Sequence[Clip], layer: int) -> Described:
    """Describe recordings: mean and standard deviation of a layer's states over valid frames.

    The layers above are not computed, and no adapter acts.

    Args:
        encoder: The encoder.
        clips: Mono signals at its sample rate.
        layer: Number of the layer.
    """
    found: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _Enough

    features, lengths = encoder.extract(clips)
    first = next(encoder.model.parameters())
    features, lengths = features.to(first.device, first.dtype), lengths.to(first.device)
    path = encoder.sites[f"layer.{layer}.end"].read
    hook = encoder.model.get_submodule(path).register_forward_hook(keep)
    try:
        with active(encoder, None):
            encoder(features, lengths)
    except _Enough:
        pass
    finally:
        hook.remove()
    states = found[0].float()
    mask = encoder.residual_mask(features, lengths)
    valid = torch.ones_like(states[..., :1]) if mask is None else mask[:, :, None].float()
    count = valid.sum(1).clamp(min=1.0)
    mean = (states * valid).sum(1) / count
    squared = ((states - mean[:, None]).square() * valid).sum(1) / count
    return torch.cat([mean, squared.sqrt()], dim=1).cpu()


def make_card(
    encoder: Encoder, name: str, described: Described, layer: int, text: str = ""
) -> RetrievalCard:
    """Return the card of an adapter.

    Args:
        encoder: What it was trained on.
        name: Its name.
        described: Its training recordings, from `describe_clips`.
        layer: The layer they were described by.
        text: What it is for, in words.

    Raises:
        ConfigError: There are fewer than two recordings.
    """
    count = len(described)
    if count < 2:
        raise ConfigError(
            f"a card of '{name}' was to be made from {count} recordings; it takes 2 or more."
        )
    chosen = torch.linspace(0, count - 1, min(EXAMPLES, count)).round().long()
    return RetrievalCard(
        name,
        text,
        layer,
        str(base_of(encoder)["fingerprint"]),
        count,
        described.mean(0),
        described.std(0),
        described[chosen],
    )


def save_card(card: RetrievalCard, folder: Path) -> Path:
    """Write a card into an adapter's folder.

    Args:
        card: The card.
        folder: The adapter's folder.
    """
    tensors = {"centroid": card.centroid, "spread": card.spread, "examples": card.examples}
    plain = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    atomic_write(folder / CARD_WEIGHTS, lambda path: save_file(plain, path, {"format": "pt"}))
    facts = {"name": card.name, "text": card.text, "layer": card.layer, "base": card.base}
    atomic_write_json(folder / CARD, facts | {"count": card.count})
    return folder


def read_card(folder: Path) -> RetrievalCard:
    """Read the card in an adapter's folder.

    Args:
        folder: The adapter's folder.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    path = folder / CARD
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        tensors = read_tensors(folder, CARD_WEIGHTS)
        return RetrievalCard(
            str(facts["name"]),
            str(facts["text"]),
            int(facts["layer"]),
            str(facts["base"]),
            int(facts["count"]),
            tensors["centroid"],
            tensors["spread"],
            tensors["examples"],
        )
    except (OSError, ValueError, LookupError, TypeError, CheckpointError) as error:
        raise CheckpointError(
            f"the adapter '{folder}' has no card to be found by: {type(error).__name__}: {error}. "
            "Make one from its training recordings: speechadapt adapters index."
        ) from error
