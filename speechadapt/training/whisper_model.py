"""Small Whisper-architecture models made from scratch, in the ordinary on-disk format."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from speechadapt.core.limits import Count, Probability, Range

_END = "<|endoftext|>"
_START = "<|startoftranscript|>"
_TASKS = ("<|translate|>", "<|transcribe|>")
_OTHERS = ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


@dataclass(frozen=True)
class WhisperShape:
    """Shape of a Whisper.

    Args:
        dim: Width.
        encoder_layers: Layers of the encoder.
        decoder_layers: Layers of the decoder.
        heads: Attention heads, in both.
        feed_forward: Inner width of the feed-forwards.
        window_s: Length of the padded window in seconds.
        text_tokens: Size of the byte-level text vocabulary, special tokens not counted.
        target_tokens: Longest token sequence.
        dropout: On the output of every block.
    """

    dim: Count = 192
    encoder_layers: Count = 4
    decoder_layers: Count = 2
    heads: Count = 4
    feed_forward: Count = 512
    window_s: Annotated[int, Range(1.0, 30.0)] = 10
    text_tokens: Annotated[int, Range(256.0)] = 512
    target_tokens: Count = 160
    dropout: Probability = 0.1


def special_tokens(window_s: int) -> list[str]:
    """Return Whisper's special tokens, in its order, with timestamps up to `window_s` seconds."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    languages = [f"<|{code}|>" for code in LANGUAGES]
    times = [f"<|{index * 0.02:.2f}|>" for index in range(window_s * 50 + 1)]
    return [_END, _START, *languages, *_TASKS, *_OTHERS, *times]


def train_tokenizer(texts: Iterable[str], shape: WhisperShape) -> WhisperTokenizer:
    """Learn byte-level merges from texts and lay the special tokens out as Whisper does.

    Args:
        texts: Transcripts of the training split; a space is put before each, as in Whisper.
        shape: Gives the vocabulary's size and the window.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.text_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator((f" {text}" for text in texts), trainer)
    learned = json.loads(learner.to_str())["model"]
    specials = special_tokens(shape.window_s)
    vocabulary = dict(learned["vocab"])
    vocabulary[_END] = len(vocabulary)
    with TemporaryDirectory() as folder:
        vocab_file, merges_file = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocab_file.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        lines = [" ".join(pair) for pair in learned["merges"]]
        merges_file.write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")
        tokenizer = WhisperTokenizer(
            vocab=str(vocab_file), merges=str(merges_file), pad_token=_END, eos_token=_END
        )
        tokenizer.add_special_tokens({"additional_special_tokens": specials[1:]})
    return tokenizer


def new_model(shape: WhisperShape, tokenizer: WhisperTokenizer) -> WhisperForConditionalGeneration:
    """Return a randomly initialised model with its generation settings."""
    end = int(tokenizer.convert_tokens_to_ids(_END))
    start = int(tokenizer.convert_tokens_to_ids(_START))
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=shape.dim,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.feed_forward,
        decoder_ffn_dim=shape.feed_forward,
        max_source_positions=shape.window_s * 50,
        max_target_positions=shape.target_tokens,
        dropout=shape.dropout,
        decoder_start_token_id=start,
        bos_token_id=end,
        pad_token_id=end,
        eos_token_id=end,
        apply_spec_augment=False,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = _generation_config(tokenizer, shape)
    return model


def prefix_ids(tokenizer: WhisperTokenizer, language: str = "en") -> list[int]:
    """Return start, language, task and no-timestamps tokens."""
    names = [_START, f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>"]
    return [int(tokenizer.convert_tokens_to_ids(name)) for name in names]


def save_model(
    model: WhisperForConditionalGeneration,
    extractor: WhisperFeatureExtractor,
    tokenizer: WhisperTokenizer,
    folder: Path,
) -> None:
    """Write model (fp16), extractor and tokenizer to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to(torch.float16).save_pretrained(folder)
    extractor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def greedy(
    model: WhisperForConditionalGeneration, frames: torch.Tensor, prefix: Sequence[int], most: int
) -> list[list[int]]:
    """Write the likeliest token at each step; every row ends at its first end token.

    Args:
        model: In evaluation mode.
        frames: Encoder output `[batch, frames, dim]`.
        prefix: Tokens every row starts with.
        most: Most tokens to write after the prefix.

    Returns:
        Token ids per row, without prefix and end token.
    """
    end = int(model.config.eos_token_id)
    tokens = torch.tensor([list(prefix)] * len(frames), device=frames.device)
    decoder = model.model.decoder
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = config.decoder_layers
    cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
    # transformers 5.24 renamed the argument
    names = inspect.signature(decoder.forward).parameters
    kept = {"cache" if "cache" in names else "past_key_values": cache}
    done = torch.zeros(len(frames), dtype=torch.bool, device=frames.device)
    following = tokens
    for _ in range(most):
        output = decoder(input_ids=following, encoder_hidden_states=frames, use_cache=True, **kept)
        best = model.proj_out(output.last_hidden_state[:, -1]).argmax(-1)
        best = torch.where(done, torch.full_like(best, end), best)
        done |= best == end
        following = best[:, None]
        tokens = torch.cat([tokens, following], 1)
        if bool(done.all()):
            break
    rows = tokens[:, len(prefix) :].tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


def _generation_config(tokenizer: WhisperTokenizer, shape: WhisperShape) -> GenerationConfig:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    def number(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))

    return GenerationConfig(
        decoder_start_token_id=number(_START),
        bos_token_id=number(_END),
        eos_token_id=number(_END),
        pad_token_id=number(_END),
        no_timestamps_token_id=number("<|notimestamps|>"),
        prev_sot_token_id=number("<|startofprev|>"),
        max_initial_timestamp_index=50,
        max_length=shape.target_tokens,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": number(f"<|{code}|>") for code in LANGUAGES},
        task_to_id={"transcribe": number("<|transcribe|>"), "translate": number("<|translate|>")},
        return_timestamps=False,
        suppress_tokens=[],
        # The other languages' tokens are untrained, so none is to be guessed.
        language="en",
        task="transcribe",
    )
