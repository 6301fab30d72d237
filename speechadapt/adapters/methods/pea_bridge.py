"""A small network between an encoder and a frozen decoder that was made for another encoder.

    y' = W3 gelu(W2 gelu(W1 norm(y) + P s) + b2) + b3

y is the encoder's output. W1 widens it without a bias, W3 brings it to `repeat` vectors of the
decoder's width `dim`; P s, left out unless `places`, adds a trained view of the frame's place in
the clip (sines and cosines as in Whisper), which relative encoders do not carry and a decoder's
attention may lean on. It never starts as the identity: what it should say is another encoder's
language, learned from that encoder's frames (`training/tasks/bridge.py`).

Source: https://arxiv.org/abs/2311.17086 section 3
Reference: https://github.com/OPPO-Mente-Lab/PEA-Diffusion train_sd_zh.py
Differs: the widths follow the site instead of being fixed at 1024, 2048 and 768; a frame may give
    several, because two speech encoders seldom agree on their rate; places can be added. At other
    widths than the encoder's own, whatever reads the frames must expect them
    (`models/bridged.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.blocks import check_frames
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import SiteError
from speechadapt.core.limits import Count, CountOrNone
from speechadapt.encoders.sites import Site

_LONGEST = 10_000.0  # longest wavelength of a place, over 2 pi frames


@dataclass(frozen=True)
class PeaBridgeConfig:
    """Settings of the bridge.

    Args:
        hidden: Inner width; 0 is twice the encoder's, as in the source.
        dim: Width of the frames it gives; 0 is the encoder's own.
        repeat: Frames given for each that is taken; they lie side by side.
        places: Whether a frame's place in the clip goes in too.
    """

    hidden: CountOrNone = 0
    dim: CountOrNone = 0
    repeat: Count = 1
    places: bool = False


class PeaBridgeAdapter(Adapter):
    """The network at the encoder's output.

    Args:
        site: The encoder's output, or any place where frames are.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is a convolution, or holds the patches of a spectrogram, which the
            encoder itself brings together at its own width.
    """

    def __init__(
        self, site: Site, config: PeaBridgeConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_frames(site, "pea_bridge")
        hidden, dim = _widths(site, config)
        if site.grid is not None and dim != site.dim_out:
            raise SiteError(
                f"adapter 'pea_bridge' was to give frames of width {dim}, but at '{site.role}' lie "
                f"patches of width {site.dim_out}, whose mean is the frame. Leave adapter.dim and "
                "adapter.repeat as they are."
            )
        self.norm = nn.LayerNorm(site.dim_out)
        self.first = nn.Linear(site.dim_out, hidden, bias=False)
        self.places = nn.Linear(site.dim_out, hidden, bias=False) if config.places else None
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, dim)

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Return the frames for the decoder.

        Args:
            x: Not read.
            y: `[batch, frames, dim]`.
            context: Not read.
        """
        states = self.first(self.norm(y))
        if self.places is not None:
            table = sinusoids(y.shape[1], y.shape[2]).to(y.device, self.places.weight.dtype)
            states = states + self.places(table)
        changed: Tensor = self.last(functional.gelu(self.second(functional.gelu(states))))
        return changed


def sinusoids(count: int, dim: int) -> Float[Tensor, "count dim"]:
    """Return the sines, then the cosines, that tell places from one another.

    Args:
        count: Places.
        dim: Width, at least 2; an odd one is filled up with a zero.

    Source: https://arxiv.org/abs/1706.03762 section 3.5, in the layout of Whisper.
    """
    half = dim // 2
    step = math.log(_LONGEST) / max(1, half - 1)
    speeds = torch.exp(-step * torch.arange(half, dtype=torch.float32))
    angles = torch.arange(count, dtype=torch.float32)[:, None] * speeds[None, :]
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    return functional.pad(table, (0, dim - table.shape[1]))


def _widths(site: Site, config: PeaBridgeConfig) -> tuple[int, int]:
    hidden = config.hidden or 2 * site.dim_out
    return hidden, config.repeat * (config.dim or site.dim_out)


def parameters(site: Site, config: PeaBridgeConfig) -> int:
    """Count 2 d + d h (1 + places) + h (h + 1) + o (h + 1) for widths d, h and o."""
    hidden, dim = _widths(site, config)
    first = site.dim_out * hidden * (2 if config.places else 1)
    return 2 * site.dim_out + first + (hidden + dim) * (hidden + 1)


METHOD = Method(
    config=PeaBridgeConfig,
    adapter=PeaBridgeAdapter,
    roles=("encoder",),
    source="https://arxiv.org/abs/2311.17086 section 3",
    tiny=PeaBridgeConfig(hidden=12, places=True),
    parameters=parameters,
    starts_as_identity=False,
)
