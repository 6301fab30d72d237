"""A random Whisper model with a byte-level tokenizer, for tests."""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from speechadapt.decoders.whisper_ar.tokens import special_tokens

_LANGUAGES = ("en", "de", "zh")
_WINDOW_S = 2.0


def tiny_tokenizer() -> Tokenizer:
    """Make a tokenizer of 256 bytes and Whisper's special tokens, timestamps included."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in special_tokens(_LANGUAGES, _WINDOW_S)]
    )
    return tokenizer


def tiny_network(dim: int = 32, seed: int = 0) -> WhisperForConditionalGeneration:
    """Make a two-layer model with a 2 s window that fits `tiny_tokenizer`.

    Its weights are large, so that its texts differ from clip to clip.

    Args:
        dim: Width, a multiple of 4.
        seed: Seed of the weights.
    """
    tokenizer = tiny_tokenizer()
    start = tokenizer.token_to_id("<|startoftranscript|>")
    end = tokenizer.token_to_id("<|endoftext|>")
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        num_mel_bins=80,
        d_model=dim,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=2 * dim,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=2 * dim,
        max_source_positions=100,
        max_target_positions=32,
        init_std=0.5,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WhisperForConditionalGeneration(config)
    network.generation_config = tiny_generation(tokenizer)
    return network.eval()


def tiny_generation(tokenizer: Tokenizer) -> GenerationConfig:
    """Return the generation settings that go with `tiny_network`."""
    end = tokenizer.token_to_id("<|endoftext|>")
    settings = GenerationConfig(
        decoder_start_token_id=tokenizer.token_to_id("<|startoftranscript|>"),
        eos_token_id=end,
        pad_token_id=end,
        bos_token_id=end,
    )
    settings.is_multilingual = True
    settings.lang_to_id = {
        f"<|{language}|>": tokenizer.token_to_id(f"<|{language}|>") for language in _LANGUAGES
    }
    settings.task_to_id = {
        task: tokenizer.token_to_id(f"<|{task}|>") for task in ("translate", "transcribe")
    }
    settings.no_timestamps_token_id = tokenizer.token_to_id("<|notimestamps|>")
    settings.begin_suppress_tokens = [end]
    settings.suppress_tokens = [
        tokenizer.token_to_id(token)
        for token in special_tokens(_LANGUAGES, _WINDOW_S)
        if token != "<|endoftext|>" and not token[2].isdigit()
    ]
    settings.alignment_heads = [[0, 1], [1, 2]]
    return settings
