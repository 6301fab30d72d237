from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper with a 2 s window, in a folder as transformers saves it."""
    from transformers import WhisperFeatureExtractor

    from speechadapt.decoders.whisper_ar.tiny import tiny_network, tiny_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-whisper"
    tiny_network().save_pretrained(folder)
    WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
