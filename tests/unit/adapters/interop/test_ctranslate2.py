from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, WhisperForConditionalGeneration

from speechadapt.adapters.attach import attach
from speechadapt.adapters.interop import ctranslate2 as ours
from speechadapt.adapters.merge import merge_to_folder
from speechadapt.core.errors import CheckpointError, ConfigError, MissingExtra
from speechadapt.encoders.catalog import load_encoder

TinyFolder = Callable[[str], Path]
HAVE = importlib.util.find_spec("ctranslate2") is not None
needs_library = pytest.mark.skipif(not HAVE, reason="ctranslate2 is not installed")
# ids of the tiny model's special words; ctranslate2 looks for them by name
SPECIAL = {2: "<|endoftext|>", 3: "<|startoftranscript|>", 5: "<|notimestamps|>"}
PROMPT = [3, 5]


@pytest.fixture
def merged(tiny_folder: TinyFolder, tmp_path: Path) -> Path:
    """A tiny Whisper with an adapter merged in, and a tokenizer of as many words."""
    encoder = load_encoder(tiny_folder("whisper"))
    handle = attach(encoder, "lora", config={"rank": 2})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = merge_to_folder(encoder, "lora", tmp_path / "merged")
    words = {SPECIAL.get(index, f"w{index}"): index for index in range(64)}
    names = {"eos_token": SPECIAL[2], "bos_token": "w1", "unk_token": "w4", "pad_token": "w0"}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w4"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


@needs_library
def test_converted_model_says_the_same_tokens(merged: Path, tmp_path: Path) -> None:
    ours.export(merged, tmp_path / "converted")
    encoder = load_encoder(merged)
    samples = torch.linspace(0, 60, 16000)
    features, _ = encoder.extract([0.1 * torch.sin(samples**2), 0.1 * torch.sin(40 * samples)])
    got = ours.generate(tmp_path / "converted", features, PROMPT, max_tokens=12)
    model = WhisperForConditionalGeneration.from_pretrained(merged).eval()
    tokens = torch.tensor([PROMPT] * len(features))
    with torch.no_grad():
        for _ in range(10):
            scores = model(input_features=features, decoder_input_ids=tokens).logits[:, -1]
            tokens = torch.cat([tokens, scores.argmax(-1, keepdim=True)], dim=1)
    for row, wanted in zip(got, tokens[:, len(PROMPT) :].tolist(), strict=True):
        assert len(row) > 2
        assert row == wanted[: len(row)]


@needs_library
def test_folder_that_is_not_empty_is_left_alone(merged: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(CheckpointError, match="to hold the converted model, but is not empty"):
        ours.export(merged, tmp_path / "taken")


@pytest.mark.skipif(HAVE, reason="ctranslate2 is installed")
def test_missing_library_is_named_with_the_way_to_get_it(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    with pytest.raises(MissingExtra, match=r"CTranslate2 needs the extra 'export'"):
        ours.export(tiny_folder("whisper"), tmp_path / "converted")
    with pytest.raises(MissingExtra, match=r"needs the extra 'export'"):
        ours.generate(tmp_path, torch.zeros(1, 80, 200), PROMPT)


def test_other_models_and_precisions_are_refused(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"but holds ASTModel\. Only a whole Whisper"):
        ours.export(tiny_folder("ast"), tmp_path / "converted")
    with pytest.raises(CheckpointError, match=r"has no readable config\.json"):
        ours.export(tmp_path, tmp_path / "converted")
    with pytest.raises(ConfigError, match=r"quantisation 'int9' was asked for\. Did you mean int"):
        ours.export(tiny_folder("whisper"), tmp_path / "converted", "int9")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(CheckpointError, match="but holds whisper"):
        ours.export(tmp_path, tmp_path / "converted")
