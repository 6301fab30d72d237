"""A method that lives outside of the package, offered as an entry point from a temporary folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

SOURCE = '''"""Multiply each channel of a sub-layer's output by one plus a trained number.

    y' = y * (1 + gain)

Source: https://arxiv.org/abs/2205.05638 section 3.3
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechadapt.adapters.spec import Adapter, Context, Method, WeightDelta
from speechadapt.core.limits import Count
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class GainConfig:
    """One gain serves so many neighbouring channels."""

    width: Count = 1


class Gain(Adapter):
    def __init__(self, site: Site, config: GainConfig, shared: nn.Module | None) -> None:
        super().__init__()
        self.width = config.width
        self.gain = nn.Parameter(torch.zeros(site.dim_out // config.width))

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        return y * (1 + self.gain.repeat_interleave(self.width))


def _delta(adapter: Gain, module: nn.Module) -> WeightDelta:
    gain = adapter.gain.repeat_interleave(adapter.width)
    return WeightDelta(module.weight * gain[:, None], module.bias * gain)


METHOD = Method(
    config=GainConfig,
    adapter=Gain,
    roles=("attn.v", "ffn.down"),
    source="https://arxiv.org/abs/2205.05638",
    tiny=GainConfig(width=2),
    parameters=lambda site, config: site.dim_out // config.width,
    weight_delta=_delta,
)
'''


@contextmanager
def offered(folder: Path, name: str = "gain", source: str = SOURCE) -> Iterator[str]:
    """Put an installed distribution with one method on the path, and take it away again.

    Args:
        folder: Where to write it.
        name: The entry point's name.
        source: The method's file.
    """
    module = f"outside_{name}"
    (folder / f"{module}.py").write_text(source)
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[speechadapt.adapters]\n{name} = {module}\n")
    sys.path.insert(0, str(folder))
    invalidate_caches()
    try:
        yield name
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(module, None)
