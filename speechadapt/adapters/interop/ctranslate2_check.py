"""Whether a model converted for CTranslate2 says the tokens that the original would say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.adapters.interop import ctranslate2
from speechadapt.core.shapes import Clip
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.source import load_weights

MOST_TOKENS = 24


def count_equal(
    folder: Path, converted: Path, waveforms: Sequence[Clip], most: int = MOST_TOKENS
) -> int:
    """Decode clips greedily with both models; return for how many the tokens are the same.

    Args:
        folder: The transformers folder of a Whisper that was converted.
        converted: What came of it.
        waveforms: Mono signals at 16 kHz that fit the model's window.
        most: Tokens to compare at most, the prompt not counted.

    Raises:
        MissingExtra: CTranslate2 is not installed.
        CheckpointError: The folder is incomplete.
    """
    from transformers import WhisperForConditionalGeneration

    features, _ = load_encoder(folder).extract(waveforms)
    model = load_weights(WhisperForConditionalGeneration, folder, torch.float32)
    start = prompt(model)
    theirs = ctranslate2.generate(converted, features, start, max_tokens=len(start) + most)
    ours = greedy(model, features, start, most)
    end = int(model.config.eos_token_id)
    cut = most - len(start)  # where their row may end without an end
    pairs = [(_until(row, end), _until(own, end)) for row, own in zip(theirs, ours, strict=True)]
    return sum(row == own[: len(row)] and len(row) >= min(len(own), cut) for row, own in pairs)


def prompt(model: Any) -> list[int]:
    """Return the tokens that a transcription starts with: English where languages are known.

    Args:
        model: A Whisper with its generation settings.
    """
    settings = model.generation_config
    languages: dict[str, int] = getattr(settings, "lang_to_id", None) or {}
    tasks: dict[str, int] = getattr(settings, "task_to_id", None) or {}
    tokens = [
        model.config.decoder_start_token_id,
        languages.get("<|en|>", next(iter(languages.values()), None)),
        tasks.get("transcribe"),
        getattr(settings, "no_timestamps_token_id", None),
    ]
    return [int(token) for token in tokens if token is not None]


@torch.no_grad()
def greedy(
    model: Any, features: Float[Tensor, "batch mels time"], start: Sequence[int], most: int
) -> list[list[int]]:
    """Return the likeliest tokens one after the other, without those of the prompt.

    Args:
        model: A Whisper.
        features: Log-mel features, padded to the model's window.
        start: Tokens that every row starts with, which are not said again.
        most: Tokens per row.
    """
    states = model.get_encoder()(features)
    tokens = torch.tensor([list(start)] * len(features))
    for _ in range(most):
        scores = model(encoder_outputs=states, decoder_input_ids=tokens).logits[:, -1]
        scores[:, list(start)] = -torch.inf  # nor does CTranslate2 say them
        tokens = torch.cat([tokens, scores.argmax(-1, keepdim=True)], dim=1)
    rows: list[list[int]] = tokens[:, len(start) :].tolist()
    return rows


def _until(tokens: Sequence[int], end: int) -> list[int]:
    return list(tokens[: tokens.index(end)]) if end in tokens else list(tokens)
