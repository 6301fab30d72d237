from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    WhisperFeatureExtractor,
)

from speechadapt.decoders.whisper_ar.tiny import tiny_network, tiny_tokenizer
from speechadapt.text.alphabet import english


@pytest.fixture(scope="session")
def ctc_folder(tmp_path_factory) -> Path:
    """A random CTC Conformer at 25 Hz in half precision, as transformers saves it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-ctc"
    config = Wav2Vec2BertConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        feature_projection_input_dim=320,
        layerdrop=0.0,
        apply_spec_augment=False,
        initializer_range=0.2,
        vocab_size=29,
        pad_token_id=0,
        architectures=["Wav2Vec2BertForCTC"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Wav2Vec2BertForCTC(config)
        torch.nn.init.normal_(model.lm_head.weight)
    model.half().save_pretrained(folder)
    SeamlessM4TFeatureExtractor(stride=4).save_pretrained(folder)
    english().write(folder)
    return folder


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory) -> Path:
    """A random Whisper with a 2 s window in half precision, as transformers saves it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-whisper"
    tiny_network().half().save_pretrained(folder)
    WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
