"""Fixtures for the whole suite: tiny encoders on disk, and synthetic signals.

The signals exercise mechanics (shapes, masks, lengths); they stand for no real speech.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tests.compiled  # noqa: F401  # isort: skip - before the package is imported
import speechadapt
from speechadapt.encoders.tiny import write_tiny
from tests.fake_hub import TOKEN, FakeHub, fake_hub

TinyFolder = Callable[[str], Path]
Signal = Callable[..., Tensor]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> TinyFolder:
    """Return the folder of a family's tiny random model, written once per session."""
    written: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in written:
            written[family] = write_tiny(family, tmp_path_factory.mktemp("tiny") / family)
        return written[family]

    return folder


@pytest.fixture(scope="session")
def signal() -> Signal:
    """Make a synthetic signal of so many samples: two gliding tones in noise that swells."""

    def make(samples: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        time = torch.arange(samples) / 16000
        base = 150 + 40 * seed
        tones = torch.sin(2 * math.pi * base * time * (1 + time)) + 0.3 * torch.sin(9000 * time)
        noise = torch.randn(samples, generator=generator)
        return 0.1 * tones * torch.sin(6 * time + seed).abs() + 0.01 * noise

    return make


@pytest.fixture(scope="session")
def demo_clips() -> Path:
    """Return the folder of the shipped clips: real speech, each `x.flac` beside its `x.txt`."""
    return Path(speechadapt.__path__[0]) / "demo" / "clips"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Run a model hub in this process, which everything here takes for the real one."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with fake_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running
