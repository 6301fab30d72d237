"""Fixtures for the adapters: fresh tiny encoders, a batch of clips, adapters as after training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.handle import Handle
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder


@pytest.fixture
def load(tiny_folder) -> Callable[..., Encoder]:
    """Load a fresh tiny encoder of a family, at native length where it has the choice."""

    def make(family: str = "whisper", **options: str) -> Encoder:
        return load_encoder(tiny_folder(family), **{"padding": "native", **options})

    return make


@pytest.fixture
def clips(signal) -> list[Tensor]:
    return [signal(samples, seed) for seed, samples in enumerate((16000, 9001, 5431))]


@pytest.fixture
def move() -> Callable[[Handle], None]:
    """Change every trainable tensor, as training would."""

    def act(handle: Handle, size: float = 0.05) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in handle.parameters():
                parameter += (size * torch.randn(parameter.shape, generator=generator)).to(
                    parameter.dtype
                )

    return act
