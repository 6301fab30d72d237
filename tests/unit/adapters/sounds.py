"""Three kinds of made sound that an encoder tells apart, and a fourth that is none of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

KINDS = ("low", "high", "noise")


def sound(kind: str, seed: int, samples: int = 8000) -> Tensor:
    """Return a signal of a kind, different for every seed."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    wobble = float(torch.rand((), generator=generator))
    hiss = torch.randn(samples, generator=generator)
    if kind == "noise":
        return (0.1 + 0.05 * wobble) * hiss
    if kind == "clicks":
        return (torch.arange(samples) % 800 < 3).float() * (0.5 + wobble)
    base = {"low": 200, "high": 3000}[kind] * (1 + 0.1 * wobble)
    return 0.1 * torch.sin(2 * math.pi * base * time) + 0.003 * hiss


def sounds(kind: str, count: int, first: int = 0) -> list[Tensor]:
    """Return several signals of a kind."""
    return [sound(kind, first + number) for number in range(count)]
