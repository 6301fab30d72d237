"""Adapters chosen for each utterance by what it sounds like, from an index.

`auto(INDEX)` attaches every adapter of the index. For each row of a batch the `top` nearest are
weighted by their distance; where none is near, the base speaks alone. The weights are handed to the
encoder as the condition `adapter_weights`, so rows of one batch may differ in all of it.

Source: https://arxiv.org/abs/2404.10681 (Stylus)
Differs: see `adapters/retrieval.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from speechadapt.adapters import store
from speechadapt.adapters.composed import mix
from speechadapt.adapters.composite_store import fingerprint
from speechadapt.adapters.handle import attachment, attachments, base_of
from speechadapt.adapters.kinds import Kind, Part, Request
from speechadapt.adapters.retrieval import describe_clips
from speechadapt.adapters.retrieval_index import Index, read_index
from speechadapt.adapters.routing import Names
from speechadapt.adapters.weighers import ROW_WEIGHTS, ByRow
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.limits import Count, NotNegative, Positive
from speechadapt.core.shapes import Clip
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site

SOURCE = "https://arxiv.org/abs/2404.10681"
RETRIEVER = "retriever"  # where a handle's notes keep who chooses


@dataclass(frozen=True)
class RouteConfig:
    """Settings of the choice.

    Args:
        top: The most adapters that speak for one utterance.
        temperature: Above 0; higher shares the weight out more evenly.
        threshold: Strangeness beyond which nothing is near; None takes the index's own.
    """

    top: Count = 1
    temperature: Positive = 0.1
    threshold: NotNegative | None = None


@dataclass(frozen=True)
class Retriever:
    """Chooses adapters for recordings.

    Args:
        encoder: Describes the recordings.
        index: The adapters.
        config: Settings of the choice.
    """

    encoder: Encoder
    index: Index
    config: RouteConfig

    def weights(self, clips: Sequence[Clip]) -> Float[Tensor, "clips adapters"]:
        """Return how much every adapter counts for every recording; zeros mean the base alone.

        Args:
            clips: Mono signals at the encoder's sample rate.
        """
        described = describe_clips(self.encoder, clips, self.index.layers)
        config = self.config
        return self.index.weights(described, config.top, config.temperature, config.threshold)


def build(request: Request) -> Names:
    """Attach the index's adapters and the mixture of them; return the mixture's name."""
    if len(request.parts) != 1:
        raise ConfigError(
            f"'{request.text}' chooses from one index, but {len(request.parts)} were named. "
            "Write auto(DIR) with the folder that `speechadapt adapters index` wrote."
        )
    encoder, config = request.encoder, request.config
    index = read_index(Path(request.parts[0].label.strip("\"'")).expanduser())
    base = base_of(encoder)["fingerprint"]
    if index.base != base:
        raise CheckpointError(
            f"the index of '{request.text}' was made with the weights {index.base[:8]}..., this "
            f"encoder has {str(base)[:8]}.... Make it again with this one."
        )
    for entry in index.entries:
        folder = index.part_folder(entry)
        there = entry.name in attachments(encoder)
        found = attachment(encoder, entry.name) if there else store.read(folder)
        if fingerprint(found) != entry.fingerprint:
            raise CheckpointError(
                f"the index of '{request.text}' was made with '{entry.name}' "
                f"({entry.fingerprint[:8]}...), which changed since. Make the index again."
            )
        if not there:
            store.load(encoder, folder, name=entry.name, activate=False)
    parts = tuple(Part(name, (name,)) for name in index.names)
    handle = mix(
        replace(request, parts=parts),
        _by_row,
        _none,
        SOURCE,
        same_sites=False,
        needs=frozenset({ROW_WEIGHTS}),
    )
    handle.notes[RETRIEVER] = Retriever(encoder, index, config)
    return (request.name,)


def _by_row(site: Site, config: Any, parts: int) -> ByRow:
    return ByRow()


def _none(site: Site, config: Any) -> int:
    return 0


KIND = Kind(config=RouteConfig, build=build, source=SOURCE, least=1, of="index")
