"""What a recording sounds like to the frozen encoder, and what an adapter was trained on.

A recording is described by the mean and the standard deviation, over its frames, of the states
after some layers of the encoder, no adapter acting. An adapter's card holds the centroids of these
over its training recordings, some of them as examples, and what it is in words. Recordings in which
the same is said share a centroid of their own: words differ more than the tasks they belong to, and
only what differs between two recordings of one word is noise to an index of cards.

Source: https://arxiv.org/abs/2404.10681 (Stylus: adapters described, retrieved and weighted);
    Zhu and Martinez, Subclass discriminant analysis, PAMI 2006 (several centroids for a class)
Differs: recordings stand in for prompts and statistics of speech for descriptions of images; no
    language model composes anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor

from speechadapt.adapters.attach import active
from speechadapt.adapters.handle import base_of
from speechadapt.adapters.store import read_tensors
from speechadapt.core.errors import CheckpointError, ConfigError, SiteError
from speechadapt.core.files import atomic_write, atomic_write_json
from speechadapt.core.shapes import Clip, Frames, Mask
from speechadapt.encoders.base import Encoder

CARD = "retrieval_card.json"
CARD_WEIGHTS = "retrieval_card.safetensors"
FORMAT = "speechadapt retrieval card"
FORMAT_VERSION = 2
EXAMPLES = 256
GROUPS = 64  # of recordings that say the same, at most
FEWEST_ALIKE = 3  # recordings that make a group

Described = Float[Tensor, "clips size"]


@dataclass(frozen=True)
class RetrievalCard:
    """What an adapter was trained on, as the frozen encoder hears it.

    Args:
        name: The adapter's name.
        text: What it is for, in words.
        layers: The layers that were looked at, counted from 0.
        base: Fingerprint of the encoder's weights.
        count: Recordings that were described.
        centroids: Means of the recordings that say the same, and of all that are left.
        examples: Some recordings, evenly taken.
        groups: Which centroid belongs to each example.
    """

    name: str
    text: str
    layers: tuple[int, ...]
    base: str
    count: int
    centroids: Float[Tensor, "groups size"]
    examples: Float[Tensor, "examples size"]
    groups: Int[Tensor, " examples"]

    @property
    def residuals(self) -> Float[Tensor, "examples size"]:
        """How examples differ from the mean of those that say the same."""
        return self.examples - self.centroids[self.groups]


class _Enough(Exception):  # noqa: N818 - nothing went wrong
    """Ends a call of the encoder once its layer has run."""


def layers_of(encoder: Encoder, layers: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the layers to look at; where none is named, the first and one a third of the way up.

    Args:
        encoder: The encoder.
        layers: Numbers from 0.

    Raises:
        SiteError: The encoder has no such layer.
    """
    count = sum(role.endswith(".end") for role in encoder.sites)
    if not layers:
        return tuple(sorted({0, count // 3}))
    for layer in layers:
        if not 0 <= layer < count:
            raise SiteError(
                f"layer {layer} was to be looked at, but {encoder.family} has the layers 0 to "
                f"{count - 1} here."
            )
    return tuple(sorted(set(layers)))


@torch.no_grad()
def describe_clips(encoder: Encoder, clips: Sequence[Clip], layers: Sequence[int]) -> Described:
    """Describe recordings: mean and standard deviation of layers' states over valid frames.

    The layers above the last are not computed, and no adapter acts.

    Args:
        encoder: The encoder.
        clips: Mono signals at its sample rate.
        layers: Numbers of the layers, rising.
    """
    found: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        if len(found) == len(layers):
            raise _Enough

    features, lengths = encoder.extract(clips)
    first = next(encoder.model.parameters())
    features, lengths = features.to(first.device, first.dtype), lengths.to(first.device)
    paths = [encoder.sites[f"layer.{layer}.end"].read for layer in layers]
    hooks = [encoder.model.get_submodule(path).register_forward_hook(keep) for path in paths]
    try:
        with active(encoder, None):
            encoder(features, lengths)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    mask = encoder.residual_mask(features, lengths)
    return torch.cat([_pooled(states.float(), mask) for states in found], dim=1).cpu()


def describe_all(
    encoder: Encoder, clips: Sequence[Clip], layers: Sequence[int], rows: int = 16
) -> Described:
    """Describe many recordings, in batches of like length.

    Args:
        encoder: The encoder.
        clips: Mono signals at its sample rate; one or more.
        layers: Numbers of the layers, rising.
        rows: Recordings in a batch.

    Returns:
        In the order of the recordings.
    """
    order = sorted(range(len(clips)), key=lambda place: len(clips[place]))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), rows):
        places = order[start : start + rows]
        batch = [clips[place] for place in places]
        found |= dict(zip(places, describe_clips(encoder, batch, layers), strict=True))
    return torch.stack([found[place] for place in range(len(clips))])


def _pooled(states: Frames, mask: Mask | None) -> Described:
    valid = torch.ones_like(states[..., :1]) if mask is None else mask[:, :, None].float()
    count = valid.sum(1).clamp(min=1.0)
    mean = (states * valid).sum(1) / count
    squared = ((states - mean[:, None]).square() * valid).sum(1) / count
    return torch.cat([mean, squared.sqrt()], dim=1)


def make_card(
    encoder: Encoder,
    name: str,
    described: Described,
    layers: Sequence[int],
    text: str = "",
    said: Sequence[str] = (),
) -> RetrievalCard:
    """Return the card of an adapter.

    Args:
        encoder: What it was trained on.
        name: Its name.
        described: Its training recordings, from `describe_clips`.
        layers: The layers they were described by.
        text: What it is for, in words.
        said: Transcripts of the recordings; without them all have one centroid.

    Raises:
        ConfigError: There are fewer than two recordings, or not as many transcripts.
    """
    count = len(described)
    if count < 2:
        raise ConfigError(
            f"a card of '{name}' was to be made from {count} recordings; it takes 2 or more."
        )
    if said and len(said) != count:
        raise ConfigError(
            f"a card of '{name}' was to be made from {count} recordings, but {len(said)} "
            "transcripts were given. Give one for each, or none."
        )
    groups = _groups(said or [""] * count)
    centroids = [described[groups == group].mean(0) for group in range(int(groups.max()) + 1)]
    chosen = torch.linspace(0, count - 1, min(EXAMPLES, count)).round().long()
    return RetrievalCard(
        name,
        text,
        tuple(layers),
        str(base_of(encoder)["fingerprint"]),
        count,
        torch.stack(centroids),
        described[chosen],
        groups[chosen],
    )


def _groups(said: Sequence[str]) -> Int[Tensor, " clips"]:
    """Number recordings by what is said; what is said seldom shares the last number."""
    counts = Counter(one for one in said if one)
    often = [one for one, count in counts.most_common(GROUPS) if count >= FEWEST_ALIKE]
    number = {one: place for place, one in enumerate(sorted(often))}
    return torch.tensor([number.get(one, len(number)) for one in said])


def save_card(card: RetrievalCard, folder: Path) -> Path:
    """Write a card into an adapter's folder.

    Args:
        card: The card.
        folder: The adapter's folder.
    """
    tensors = {
        "centroids": card.centroids.half(),
        "examples": card.examples.half(),
        "groups": card.groups,
    }
    plain = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    atomic_write(folder / CARD_WEIGHTS, lambda path: save_file(plain, path, {"format": "pt"}))
    facts = {"format": FORMAT, "format_version": FORMAT_VERSION, "name": card.name}
    facts |= {"text": card.text, "layers": list(card.layers), "base": card.base}
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
        version = facts.get("format_version", 1)
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}; this release reads {FORMAT_VERSION}")
        tensors = read_tensors(folder, CARD_WEIGHTS)
        return RetrievalCard(
            str(facts["name"]),
            str(facts["text"]),
            tuple(int(layer) for layer in facts["layers"]),
            str(facts["base"]),
            int(facts["count"]),
            tensors["centroids"].float(),
            tensors["examples"].float(),
            tensors["groups"],
        )
    except (OSError, ValueError, LookupError, TypeError, CheckpointError) as error:
        raise CheckpointError(
            f"the adapter '{folder}' has no card to be found by: {type(error).__name__}: {error}. "
            "Make one from its training recordings: speechadapt adapters index --data."
        ) from error
