"""Fixtures of the contract suites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.tiny import write_tiny
from tests.contract.adapter_checks import Case

Cases = Callable[[str, str, str], Case]


@pytest.fixture(scope="session")
def encoders(tiny_folder, tmp_path_factory) -> Callable[[str, str], tuple[Encoder, ...]]:
    """Load a family's tiny encoder twice, and one with other weights, once per session."""
    loaded: dict[tuple[str, str], tuple[Encoder, ...]] = {}

    def load(family: str, padding: str) -> tuple[Encoder, ...]:
        if (family, padding) not in loaded:
            other = write_tiny(family, tmp_path_factory.mktemp("other") / family, seed=7)
            folders = (tiny_folder(family), tiny_folder(family), other)
            loaded[family, padding] = tuple(load_encoder(one, padding=padding) for one in folders)
        return loaded[family, padding]

    return load


@pytest.fixture(scope="session")
def clips(signal) -> list[Tensor]:
    return [signal(samples, seed) for seed, samples in enumerate((16000, 9001, 5431))]


@pytest.fixture(scope="session")
def batches(encoders, clips: list[Tensor]) -> Callable[[str, str], tuple[Tensor, Tensor]]:
    """Extract the clips' features for a family, once per session."""
    made: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}

    def extract(family: str, padding: str) -> tuple[Tensor, Tensor]:
        if (family, padding) not in made:
            made[family, padding] = encoders(family, padding)[0].extract(clips)
        return made[family, padding]

    return extract


@pytest.fixture
def make_case(encoders, clips: list[Tensor], batches, tmp_path: Path) -> Cases:
    """Make the case of a method, a family and a way of padding."""

    def make(method: str, family: str, padding: str = "native") -> Case:
        given = encoders(family, padding)
        return Case(method, *given, clips, tmp_path, batches(family, padding))

    return make
