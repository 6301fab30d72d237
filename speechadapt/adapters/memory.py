"""What adapters are conditioned on, made from recordings: memory tokens, and tracks of control.

    memory = remember(encoder, [enrolment])                   a few tokens for each recording
    track = frame_track(activity, 100.0, encoder.frame_rate)  a signal over time, frame by frame

Both are values of conditions: `active(encoder, name, conditions={"memory": memory})`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters.attach import active
from speechadapt.core.errors import ConfigError
from speechadapt.core.shapes import Clip, Lengths
from speechadapt.encoders.base import Encoder


def remember(
    encoder: Encoder, clips: Sequence[Clip], layer: int = -1, tokens: int = 16
) -> list[Float[Tensor, "tokens dim"]]:
    """Return the frames that the frozen encoder makes of recordings, averaged to a few tokens.

    Args:
        encoder: The encoder; its adapters are off meanwhile.
        clips: Recordings at its rate, none longer than its window.
        layer: Whose output is taken, counted from 0; -1 the last.
        tokens: Most tokens of one recording, each the mean of a stretch of it.

    Returns:
        One memory for each recording, of fewer tokens where it has fewer frames.

    Raises:
        ConfigError: There is no such layer.
    """
    features, lengths = encoder.extract(clips)
    first = next(encoder.model.parameters())
    features = features.to(first.device, first.dtype)
    return remember_features(encoder, features, lengths.to(first.device), layer, tokens)


@torch.no_grad()
def remember_features(
    encoder: Encoder, features: Tensor, lengths: Lengths, layer: int = -1, tokens: int = 16
) -> list[Float[Tensor, "tokens dim"]]:
    """Return what `remember` does, of features that are there already.

    Args:
        encoder: The encoder; its adapters are off meanwhile.
        features: As its `extract` returns them.
        lengths: Valid feature frames per row.
        layer: Whose output is taken, counted from 0; -1 the last.
        tokens: Most tokens of one recording, each the mean of a stretch of it.

    Returns:
        One memory for each recording, of fewer tokens where it has fewer frames.

    Raises:
        ConfigError: There is no such layer.
    """
    ends = [site for role, site in encoder.sites.items() if role.endswith(".end")]
    if not -len(ends) <= layer < len(ends):
        raise ConfigError(
            f"a memory from layer {layer} was asked for; {encoder.family} has layers 0 to "
            f"{len(ends) - 1}, and -1 is the last."
        )
    site = ends[layer]
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    hook = encoder.model.get_submodule(site.write).register_forward_hook(keep)
    try:
        with active(encoder, None):
            _, valid = encoder(features, lengths)
    finally:
        hook.remove()
    states = found[0]
    if site.grid is not None:  # patches of one time are one frame, as in the encoder's own output
        grid = site.grid
        patches = states[:, grid.specials :]
        states = patches.reshape(len(patches), grid.rows, grid.columns, -1).mean(1)
    return [_averaged(row[:count], tokens) for row, count in zip(states, valid, strict=True)]


def _averaged(frames: Tensor, tokens: int) -> Float[Tensor, "tokens dim"]:
    most = min(tokens, len(frames))
    return nn.functional.adaptive_avg_pool1d(frames.t()[None], most)[0].t().clone()


def frame_track(
    values: Float[Tensor, " steps *channels"],
    rate_hz: float,
    frame_rate: float,
    start_s: float = 0.0,
) -> Float[Tensor, "frames channels"]:
    """Resample a track, such as the activity of a voice, to the rate of an encoder's frames.

    A frame gets the mean of the track over the frame's time; before and after the track is zero.

    Args:
        values: The track, one or several channels.
        rate_hz: Its steps in a second.
        frame_rate: The encoder's frames in a second.
        start_s: Time at which the track begins, such as the hiss put before a clip.

    Raises:
        ConfigError: A rate is not above 0.
    """
    if not (rate_hz > 0 and frame_rate > 0):
        raise ConfigError(
            f"a track is resampled from one rate above 0 to another, got {rate_hz:g} and "
            f"{frame_rate:g} Hz."
        )
    steps = values.reshape(len(values), -1).double()
    count = max(1, round((start_s + len(steps) / rate_hz) * frame_rate))
    edges = (torch.arange(count + 1, dtype=torch.double) / frame_rate - start_s) * rate_hz
    edges = edges.clamp(0.0, len(steps)).to(steps.device)
    # the integral of a piecewise constant track, read off at the frames' edges
    total = nn.functional.pad(steps.cumsum(0), (0, 0, 1, 0))
    below = edges.floor().long().clamp(max=len(steps) - 1)
    whole = total[below] + (edges - below)[:, None] * steps[below]
    return (whole.diff(dim=0) * (frame_rate / rate_hz)).to(values.dtype)
