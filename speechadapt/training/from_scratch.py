"""Training a new model through an adapter that merges, in place of the weights it changes.

The weights at the adapter's sites stay as they were drawn; whatever else the model has (norms,
biases, stems) is trained as ever. The model that leaves has the change in its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from speechadapt.adapters.attach import attach
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.merge import merge, unmerge
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError
from speechadapt.encoders.base import Encoder


def through_problems(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Say why a model cannot be trained through a method with these settings.

    Args:
        name: The method; empty trains the weights themselves.
        settings: Its settings.
    """
    if not name:
        return ["adapter settings were given without a method. Set method=lte."] if settings else []
    try:
        method = method_of(name)
    except CatalogError as error:
        return [str(error)]
    if not method.merges:
        return [
            f"method={name} was asked for, but a new model keeps what it learned in its weights, "
            "and that method changes more than those. Set method=lte."
        ]
    return bind(method.config, settings, "adapter")[1]


def train_through(
    encoder: Encoder, method: str, settings: Mapping[str, Any], roles: Sequence[str] = ()
) -> Handle:
    """Attach a method whose tensors are trained in place of the weights at its sites.

    Args:
        encoder: Holds the new model; all its other parameters are left to train.
        method: A method that merges.
        settings: Its settings.
        roles: Role patterns; empty takes the method's own.

    Raises:
        CatalogError: There is no such method.
        ConfigError: A setting is out of range.
        SiteError: A pattern matches nothing.
    """
    handle = attach(encoder, method, config=settings, roles=roles or None)
    replaced = {f"{site.write}.weight" for site in handle.sites}
    for name, parameter in encoder.model.named_parameters():
        parameter.requires_grad_(name not in replaced)
    return handle


@contextmanager
def learned_weights(handle: Handle) -> Iterator[None]:
    """Hold what was learned in the model's own weights inside a `with` block.

    Args:
        handle: As `train_through` returned it.
    """
    merge(handle.encoder, handle.name)
    try:
        yield
    finally:
        unmerge(handle.encoder, handle.name)


def traffic(handle: Handle, steps: int) -> dict[str, Any]:
    """Say what each of several workers would have sent, in bytes, as JSON values.

    Args:
        handle: As `train_through` returned it.
        steps: Steps done.

    Returns:
        `ordinary` is the gradient of every weight at every step; `rest` that of the parameters
        beside the adapter's at every step; `figures` what the method says of its own.
    """
    held = list(handle.encoder.model.parameters())
    everything = sum(one.numel() * one.element_size() for one in held)
    rest = sum(one.numel() * one.element_size() for one in held if one.requires_grad)
    return {
        "steps": steps,
        "bytes": {"ordinary": everything * steps, "rest": rest * steps},
        "figures": handle.figures(),
    }
