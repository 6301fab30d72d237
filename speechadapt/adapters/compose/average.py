"""Adapters at once, their changes averaged with fixed weights.

    y' = y + sum_k w_k z_k         z_k: what adapter k changes y by; w sums to one

Weights are the user's (`average(a: 0.7, b: 0.3)`), or equal. Of low-rank adapters that is the
average of their weight changes, which `svd(a, b)` makes into one adapter.

Source: https://arxiv.org/abs/2302.07027 (adapters averaged after training)
Differs: outputs are averaged, not parameters, so the adapters may be of any methods and roles; an
    adapter that does not stand at a site counts as one that changes nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speechadapt.adapters.composed import mix
from speechadapt.adapters.kinds import Kind, Part, Request
from speechadapt.adapters.routing import Names
from speechadapt.adapters.weighers import Fixed
from speechadapt.core.errors import ConfigError

SOURCE = "https://arxiv.org/abs/2302.07027"


@dataclass(frozen=True)
class AverageConfig:
    """An average has no settings but its weights."""


def normalised(parts: Sequence[Part], weights: tuple[float, ...]) -> tuple[float, ...]:
    """Return the weights of the parts, brought to a sum of one.

    Args:
        parts: The parts.
        weights: One for each; empty gives all the same.

    Raises:
        ConfigError: A weight is not above 0.
    """
    given = weights or (1.0,) * len(parts)
    for part, weight in zip(parts, given, strict=True):
        if not 0.0 < weight < float("inf"):
            raise ConfigError(
                f"'{part.label}' was given the weight {weight:g}. Weights are above 0; leave an "
                "adapter out that should not count."
            )
    return tuple(weight / sum(given) for weight in given)


def build(request: Request) -> Names:
    """Attach the average and return its name."""
    weights = normalised(request.parts, request.weights)
    mix(
        request,
        lambda site, config, parts: Fixed(weights),
        lambda site, config: 0,
        SOURCE,
        same_sites=False,
    )
    return (request.name,)


KIND = Kind(config=AverageConfig, build=build, source=SOURCE, weighted=True)
