"""Whisper models of a given geometry with random weights, as ordinary transformers folders.

Weights do not change the cost of a step, so the geometry alone counts. No token but text can be
written: the end token and every special one are suppressed in `generation_config.json`, which both
sides of a comparison read, so both write exactly as many tokens as they are allowed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import pre_tokenizers
from transformers import WhisperFeatureExtractor, WhisperTokenizer
from transformers.utils import logging

from speechadapt.training.whisper_model import (
    WhisperShape,
    new_model,
    save_model,
    special_tokens,
)

_END = "<|endoftext|>"


@dataclass(frozen=True)
class Geometry:
    """A named size.

    Args:
        name: As the tables say it.
        shape: The sizes.
    """

    name: str
    shape: WhisperShape


WHISPER_TINY = Geometry(
    "Whisper-tiny",
    WhisperShape(
        dim=384,
        encoder_layers=4,
        decoder_layers=4,
        heads=6,
        feed_forward=1536,
        window_s=30,
        text_tokens=50257,
        target_tokens=448,
        dropout=0.0,
    ),
)
QUICK = Geometry(
    "quick",
    WhisperShape(
        dim=32,
        encoder_layers=2,
        decoder_layers=1,
        heads=2,
        feed_forward=64,
        window_s=10,
        text_tokens=300,
        target_tokens=24,
        dropout=0.0,
    ),
)


def write_random(geometry: Geometry, folder: Path, seed: int = 0) -> Path:
    """Write a model folder with random weights.

    Args:
        geometry: Its size.
        folder: Is made.
        seed: Other seeds give other weights; the global random state is left alone.

    Returns:
        `folder`.
    """
    tokenizer = filler_tokenizer(geometry.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(geometry.shape, tokenizer)
    first = int(tokenizer.convert_tokens_to_ids(_END))
    model.generation_config.suppress_tokens = list(range(first, len(tokenizer)))
    extractor = WhisperFeatureExtractor(chunk_length=geometry.shape.window_s)
    logging.disable_progress_bar()
    save_model(model, extractor, tokenizer, folder)
    return folder


def filler_tokenizer(shape: WhisperShape) -> WhisperTokenizer:
    """Make a byte-level tokenizer without merges: 256 bytes, made-up words, the special tokens.

    Args:
        shape: Gives the size of the text vocabulary and the window.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{number}" for number in range(shape.text_tokens - len(letters))]
    vocabulary = {token: number for number, token in enumerate([*letters, *words, _END])}
    with TemporaryDirectory() as folder:
        vocab_file, merges_file = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocab_file.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        merges_file.write_text("#version: 0.2\n", encoding="utf-8")
        tokenizer = WhisperTokenizer(
            vocab=str(vocab_file), merges=str(merges_file), pad_token=_END, eos_token=_END
        )
    others = special_tokens(shape.window_s)[1:]
    tokenizer.add_special_tokens({"additional_special_tokens": others})
    return tokenizer
