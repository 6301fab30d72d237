"""A control track added to every layer: voice activity, the activity of a speaker, onsets.

    y'_t = y_t + sum_j W_j c_{t+j}        c: the track at the frames' rate, W: a convolution over it

The condition `control` holds a track for each row, `[frames, channels]` or `[frames]`, at the rate
of the encoder's frames (`adapters.memory.frame_track` brings it there); past its end and the row's,
and for a row without one (None), it is zero. W starts at zero, so nothing changes at first, and a
track of zeros changes nothing ever.

Source: https://arxiv.org/abs/2407.01494 section 3 (temporal controller)
Reference: https://github.com/open-mmlab/FoleyCrafter/tree/c2399fa/foleycrafter (onset timeline)
Differs: a narrow convolution at the end of each layer, where the reference copies half the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.blocks import check_frames
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import ConfigError
from speechadapt.core.limits import Count, CountOrNone
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site

CONTROL = "control"


@dataclass(frozen=True)
class ControlTrackConfig:
    """Settings of the control track.

    Args:
        channels: Values at each frame.
        reach: Frames before and after that a frame sees of the track.
    """

    channels: Count = 1
    reach: CountOrNone = 2


class ControlTrackAdapter(Adapter):
    """The convolution over the track at one layer.

    Args:
        site: The end of a layer, or a sub-layer.
        config: Its settings.
        shared: Nothing.

    Raises:
        SiteError: The site is a convolution.
    """

    def __init__(
        self, site: Site, config: ControlTrackConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_frames(site, "control_track")
        self.grid = site.grid
        size = 2 * config.reach + 1
        self.spread = nn.Conv1d(
            config.channels, site.dim_out, size, padding=config.reach, bias=False
        )
        nn.init.zeros_(self.spread.weight)

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Add what the track says at each frame.

        Args:
            x: Not read.
            y: What is written.
            context: Holds the condition `control`, one track for each row, and the mask.

        Raises:
            ConfigError: A track has other channels, or there is not one for each row.
        """
        count = y.shape[1] if self.grid is None else self.grid.columns
        rows = context.conditions[CONTROL]
        if len(rows) != len(y):
            raise ConfigError(
                f"the condition '{CONTROL}' has {len(rows)} entries for {len(y)} rows. "
                "Give one entry per row."
            )
        tracks = torch.stack([self._fitted(row, count) for row in rows])
        if context.mask is not None:  # what a track says past its row's end reaches no frame
            tracks = tracks.masked_fill(~context.mask[:, :, None], 0.0)
        added = self.spread(tracks.transpose(1, 2)).transpose(1, 2)
        if self.grid is not None:  # all patches of one time see the same; special tokens nothing
            added = added.repeat(1, self.grid.rows, 1)
            added = functional.pad(added, (0, 0, self.grid.specials, 0))
        total: Tensor = y + added
        return total

    def _fitted(self, row: Tensor | None, count: int) -> Tensor:
        weight = self.spread.weight
        channels = weight.shape[1]
        if row is None:
            return weight.new_zeros(count, channels)
        track = torch.as_tensor(row).to(weight.device, weight.dtype)
        track = track[:, None] if track.ndim == 1 else track
        if track.ndim != 2 or track.shape[1] != channels:
            raise ConfigError(
                f"the condition '{CONTROL}' must be [frames, {channels}] for each row, got "
                f"{list(track.shape)}. Set adapter.channels to what the track has."
            )
        return functional.pad(track[:count], (0, 0, 0, max(0, count - len(track))))


def parameters(site: Site, config: ControlTrackConfig) -> int:
    """Count the taps of the convolution, which has no bias."""
    return site.dim_out * config.channels * (2 * config.reach + 1)


def example(rows: int, dim: int) -> dict[str, Any]:
    """Return tracks of different lengths."""
    generator = torch.Generator().manual_seed(0)
    return {CONTROL: [torch.randn(9 + 5 * row, generator=generator) for row in range(rows)]}


METHOD = Method(
    config=ControlTrackConfig,
    adapter=ControlTrackAdapter,
    roles=("end",),
    source="https://arxiv.org/abs/2407.01494 section 3",
    tiny=ControlTrackConfig(reach=1),
    parameters=parameters,
    needs=frozenset({CONTROL}),
    example=example,
)
