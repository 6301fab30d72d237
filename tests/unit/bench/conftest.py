from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speechadapt.decoders.masked_diffusion.store import Heard, save_folder
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.encoders.source import fingerprint_folder
from tests.tiny_tasks import whisper_folder


@pytest.fixture(scope="session")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random diffusion decoder on the encoder of a random Whisper with its own decoder."""
    folder = tmp_path_factory.mktemp("bench")
    whisper = whisper_folder(folder)
    vocabulary = tiny_vocabulary()
    heard = Heard(str(whisper), fingerprint_folder(whisper))
    save_folder(folder / "toy", tiny_network(vocabulary, 32), vocabulary, heard, torch.float32)
    return folder / "toy"
