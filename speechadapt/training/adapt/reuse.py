"""Whether and where the states of the frozen layers are kept while adapters are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from speechadapt.adapters.handle import Handle
from speechadapt.core.errors import ConfigError
from speechadapt.core.files import hash_json
from speechadapt.encoders.base import Encoder
from speechadapt.training.adapt.frozen_prefix import (
    DiskCache,
    FrozenPrefix,
    MemoryCache,
    Reuse,
    StateDtype,
    frozen_depth,
    layer_count,
)


@dataclass(frozen=True)
class PrefixConfig:
    """What becomes of the states below the first adapter.

    Args:
        cache: `none` computes them at every step; `memory` and `disk` keep them for inputs that
            come again (see `repeat`).
        dtype: What they are kept in; with `fp16` they are rounded.
        folder: Where `disk` keeps them, by what they depend on; runs that share it share them.
    """

    cache: Literal["none", "memory", "disk"] = "none"
    dtype: StateDtype = "fp32"
    folder: str = ""

    def problems(self) -> list[str]:
        """Say which settings lack one another."""
        if self.cache == "disk" and not self.folder:
            return ["prefix.cache=disk needs a place: set prefix.folder=FOLDER."]
        return []


def make_reuse(
    encoder: Encoder, handle: Handle | None, config: PrefixConfig, facts: Mapping[str, Any]
) -> Reuse | None:
    """Return what encodes inputs that come again, None where nothing is to be kept.

    Args:
        encoder: The encoder.
        handle: What is trained on it; None where that is a head alone.
        config: What to keep.
        facts: What the inputs depend on, as JSON values.

    Raises:
        ConfigError: No frozen layer lies below the first adapter.
    """
    if config.cache == "none":
        return None
    depth = frozen_depth(encoder, handle)
    if depth == 0:
        assert handle is not None
        sites = ", ".join(site.role for site in handle.sites[:3])
        last = layer_count(encoder) - 1
        raise ConfigError(
            f"prefix.cache={config.cache} was asked for, but {handle.method_name} adapts {sites}, "
            "and no frozen layer lies below. Adapt upper layers alone, such as "
            f"roles=[layer.{last}.attn], or set prefix.cache=none."
        )
    prefix = FrozenPrefix(encoder, depth)
    if config.cache == "memory":
        return Reuse(prefix, MemoryCache(config.dtype))
    name = hash_json(
        {
            "weights": encoder.fingerprint(),
            "family": encoder.family,
            "depth": depth,
            "dtype": config.dtype,
            "versions": {name: version(name) for name in ("torch", "transformers")},
            **facts,
        }
    )
    folder = Path(config.folder).expanduser() / name[:16]
    return Reuse(prefix, DiskCache(folder, config.dtype))
