"""Where a state is: rotary positions, whole or not, and sinusoids of time."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ROTARY_BASE = 10_000.0

Turns = Float[Tensor, "*axes positions half"]
Rotation = tuple[Turns, Turns]


def rotary(
    places: Int[Tensor, "*axes positions"] | Float[Tensor, "*axes positions"], head_dim: int
) -> Rotation:
    """Return the cosines and sines of rotary positions, in float32.

    Args:
        places: Where each state is; need not be whole.
        head_dim: Width of a head, even.
    """
    rates = _ROTARY_BASE ** (-torch.arange(0, head_dim, 2, device=places.device) / head_dim)
    angles = places[..., None].float() * rates
    return angles.cos(), angles.sin()


def rotate(
    x: Float[Tensor, "rows heads positions head_dim"], rotation: Rotation
) -> Float[Tensor, "rows heads positions head_dim"]:
    """Turn the first half of each head against the second by the angle of its position.

    Args:
        x: Queries or keys; the turn is computed in float32.
        rotation: As `rotary` returns it.

    Source: RoFormer, arXiv 2104.09864; halves rather than neighbours, as in GPT-NeoX.
    """
    cosines, sines = rotation
    first, second = x.float().chunk(2, dim=-1)
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return torch.cat(turned, dim=-1).to(x.dtype)


def time_code(count: int, dim: int, device: torch.device) -> Float[Tensor, "count dim"]:
    """Return sinusoids of the frame number, in float32.

    Args:
        count: How many, from 0.
        dim: Width.
        device: Where they are wanted.

    Source: arXiv 1706.03762, section 3.5; sines before cosines.
    """
    half = (dim + 1) // 2
    rates = _ROTARY_BASE ** (-torch.arange(half, device=device) / max(1, half - 1))
    angles = torch.arange(count, device=device)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :dim]
