"""Comparing a converted Whisper's tokens with the original's, with the converted side made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from speechadapt.adapters.interop import ctranslate2, ctranslate2_check
from speechadapt.encoders.catalog import load_encoder

TinyFolder = Callable[[str], Path]
END = 2


@pytest.fixture
def folder(tiny_folder: TinyFolder) -> Path:
    return tiny_folder("whisper")


@pytest.fixture
def clips(signal) -> list[torch.Tensor]:
    return [signal(16000), signal(20000, 1)]


@pytest.fixture
def rows(folder: Path, clips: list[torch.Tensor]) -> list[list[int]]:
    """Return what the original says."""
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features, _ = load_encoder(folder).extract(clips)
    return ctranslate2_check.greedy(model, features, [3], 8)


@pytest.mark.parametrize(
    ("change", "equal"),
    [
        (lambda row: row, 2),
        (lambda row: row[:-1], 2),  # the prompt may count towards the longest output
        (lambda row: row[:3], 0),
        (lambda row: [row[0] + 1, *row[1:]], 0),
        (lambda row: [], 0),
    ],
    ids=["same", "cut", "short", "other", "empty"],
)
def test_rows_are_equal_where_every_token_is(
    change: Callable[[list[int]], list[int]],
    equal: int,
    folder: Path,
    clips: list[torch.Tensor],
    rows: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert all(END not in row and len(row) == 8 for row in rows)
    said = [change(row) for row in rows]
    monkeypatch.setattr(ctranslate2, "generate", lambda *words, max_tokens: said)
    assert ctranslate2_check.count_equal(folder, folder, clips, most=8) == equal


def test_greedy_tokens_are_those_of_whole_passes(
    folder: Path, clips: list[torch.Tensor], rows: list[list[int]]
) -> None:
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features, _ = load_encoder(folder).extract(clips)
    tokens = torch.tensor([[3, *row] for row in rows])
    with torch.no_grad():
        scores = model(input_features=features, decoder_input_ids=tokens).logits[:, :-1]
    scores[..., 3] = -torch.inf
    assert scores.argmax(-1).tolist() == rows


def test_the_prompt_is_that_of_an_english_transcription(folder: Path) -> None:
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    assert ctranslate2_check.prompt(model) == [3]
    model.generation_config.lang_to_id = {"<|de|>": 10, "<|en|>": 11}
    model.generation_config.task_to_id = {"transcribe": 12, "translate": 13}
    model.generation_config.no_timestamps_token_id = 14
    assert ctranslate2_check.prompt(model) == [3, 11, 12, 14]
