"""Encoding with whatever acts, and saying which adapters spoke for each recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from speechadapt.adapters.attach import active
from speechadapt.adapters.compose.route import RETRIEVER
from speechadapt.adapters.composed import weights_noted
from speechadapt.adapters.handle import attachment
from speechadapt.adapters.mixture import Meter, Mixture
from speechadapt.adapters.routing import Names
from speechadapt.adapters.weighers import ROW_WEIGHTS
from speechadapt.core.errors import ConfigError
from speechadapt.core.shapes import Clip, Frames, Lengths
from speechadapt.encoders.base import Encoder

PLACES = 4


def encode_spoken(
    encoder: Encoder, names: Names, clips: Sequence[Clip]
) -> tuple[Frames, Lengths, list[dict[str, float]]]:
    """Encode recordings with a selection, routed ones chosen first.

    Args:
        encoder: The encoder.
        names: What acts on all rows, one after the other, as `compose` returned it.
        clips: Mono signals at the encoder's sample rate.

    Returns:
        Frames, the valid number of them per row, and for each row the weight of every adapter that
        spoke: 1 for one that acts alone, a mixture's weights averaged over sites and frames.
        Empty where the base spoke alone.

    Raises:
        ConfigError: Two compositions in the selection choose for themselves.
    """
    handles = [attachment(encoder, name) for name in names]
    choosing = [one.notes[RETRIEVER] for one in handles if RETRIEVER in one.notes]
    if len(choosing) > 1:
        raise ConfigError(
            f"{len(choosing)} of the compositions {list(names)} choose adapters for each "
            "utterance. Use one."
        )
    conditions: Mapping[str, Any] = {}
    if choosing:
        conditions = {ROW_WEIGHTS: choosing[0].weights(clips)}
    spoken: list[dict[str, float]] = [{} for _ in clips]
    with ExitStack() as stack:
        meters: dict[str, Meter] = {}
        for handle in handles:
            if handle.composition is not None:
                meters[handle.name] = stack.enter_context(weights_noted(handle))
        stack.enter_context(active(encoder, names, conditions))
        frames, lengths = encoder.encode(clips)
    for handle in handles:
        labels = _labels(handle.module.adapters()) if handle.name in meters else (handle.name,)
        rows = (
            meters[handle.name].rows().tolist() if handle.name in meters else [[1.0]] * len(clips)
        )
        for said, row in zip(spoken, rows, strict=True):
            weights = zip(labels, row, strict=True)
            said |= {name: round(weight, PLACES) for name, weight in weights if weight}
    return frames, lengths, spoken


def _labels(adapters: Sequence[Any]) -> tuple[str, ...]:
    first = next(one for one in adapters if isinstance(one, Mixture))
    return first.labels
