from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speechadapt.bench.adapter_options import AdapterBench
from speechadapt.bench.adapters import Bench, prepare
from speechadapt.decoders.masked_diffusion.store import Heard, save_folder
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.encoders.source import fingerprint_folder
from tests.tiny_tasks import base_folder, whisper_folder


@pytest.fixture(scope="session")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random diffusion decoder on the encoder of a random Whisper with its own decoder."""
    folder = tmp_path_factory.mktemp("bench")
    whisper = whisper_folder(folder)
    vocabulary = tiny_vocabulary()
    heard = Heard(str(whisper), fingerprint_folder(whisper))
    save_folder(folder / "toy", tiny_network(vocabulary, 32), vocabulary, heard, torch.float32)
    return folder / "toy"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model to adapt."""
    return base_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def speed(base: Path) -> Bench:
    """What methods are timed on."""
    return prepare(AdapterBench(model=str(base), clips=4, rounds=2, share=20.0))
