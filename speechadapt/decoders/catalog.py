"""The decoders by name: every folder beside this file that holds a `decoder.py` is one.

A `decoder.py` publishes its class as `DECODER`. Listing names imports nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechadapt.core.errors import CatalogError, near_misses

if TYPE_CHECKING:
    from speechadapt.decoders.base import Decoder


def decoder_names() -> list[str]:
    """List the decoders, sorted."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/decoder.py"))


def decoder_class(name: str) -> type[Decoder]:
    """Return the class of one decoder.

    Raises:
        CatalogError: There is no decoder of that name; near misses are named.
    """
    names = decoder_names()
    if name not in names:
        raise CatalogError(f"there is no decoder '{name}'.{near_misses(name, names)}")
    found: type[Decoder] = importlib.import_module(f"speechadapt.decoders.{name}.decoder").DECODER
    return found


def decoder_for(config: Mapping[str, Any]) -> type[Decoder]:
    """Return the decoder whose weights a transformers model folder holds.

    Args:
        config: The folder's `config.json`.

    Raises:
        CatalogError: No decoder claims the architecture.
    """
    for name in decoder_names():
        found = decoder_class(name)
        if found.claims(config):
            return found
    raise CatalogError(
        f"no decoder reads the architecture {config.get('architectures')}; a recogniser needs "
        "...ForCTC or WhisperForConditionalGeneration."
    )
