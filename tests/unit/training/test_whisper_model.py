from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from speechadapt.training.whisper_model import (
    WhisperShape,
    greedy,
    new_model,
    prefix_ids,
    save_model,
    special_tokens,
    train_tokenizer,
)

SHAPE = WhisperShape(
    dim=16,
    encoder_layers=1,
    decoder_layers=1,
    heads=2,
    feed_forward=16,
    window_s=2,
    text_tokens=270,
    target_tokens=24,
)
TEXTS = ["one two three", "two two", "three one", "stop"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> WhisperTokenizer:
    """Return a tokenizer of a few words."""
    return train_tokenizer(TEXTS, SHAPE)


def test_special_tokens_stand_in_whispers_order_after_the_text(tokenizer: WhisperTokenizer) -> None:
    names = special_tokens(SHAPE.window_s)
    ids = tokenizer.convert_tokens_to_ids(names)
    assert ids == list(range(ids[0], ids[0] + len(names)))
    assert names[:2] == ["<|endoftext|>", "<|startoftranscript|>"]
    assert names[-1] == "<|2.00|>"
    assert len(tokenizer) == ids[-1] + 1 <= SHAPE.text_tokens + len(names)


def test_any_text_survives_the_tokenizer(tokenizer: WhisperTokenizer) -> None:
    for text in (" two three", " stop", " zebra's ünïcode"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert len(tokenizer(" two", add_special_tokens=False)["input_ids"]) < len(" two")


def test_the_tokenizer_is_a_function_of_its_texts(tokenizer: WhisperTokenizer) -> None:
    assert train_tokenizer(TEXTS, SHAPE).get_vocab() == tokenizer.get_vocab()


def test_greedy_equals_whole_forward_passes_and_ends_rows_at_their_end(
    tokenizer: WhisperTokenizer,
) -> None:
    torch.manual_seed(2)
    model = new_model(SHAPE, tokenizer).eval()
    torch.nn.init.normal_(model.model.decoder.embed_tokens.weight)
    features = torch.randn(5, 80, 200)
    prefix = prefix_ids(tokenizer)
    end = model.config.eos_token_id
    rows = []
    with torch.no_grad():
        frames = model.model.encoder(features).last_hidden_state
        for frame in frames:
            tokens = list(prefix)
            while len(tokens) < len(prefix) + 10:
                output = model.model.decoder(
                    input_ids=torch.tensor([tokens]), encoder_hidden_states=frame[None]
                )
                best = int(model.proj_out(output.last_hidden_state[0, -1]).argmax())
                if best == end:
                    break
                tokens.append(best)
            rows.append(tokens[len(prefix) :])
    assert greedy(model, frames, prefix, 10) == rows
    # The row's own token as the end: it is cut there, and the others go on.
    model.config.eos_token_id = rows[0][1]
    cut = greedy(model, frames, prefix, 10)
    assert cut[0] == rows[0][: rows[0].index(rows[0][1])]


def test_a_saved_model_loads_with_its_tokenizer_and_extractor(
    tokenizer: WhisperTokenizer, tmp_path: Path
) -> None:
    model = new_model(SHAPE, tokenizer)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=SHAPE.window_s)
    save_model(model, extractor, tokenizer, tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path, use_safetensors=True)
    assert loaded.dtype == torch.float16
    assert loaded.generation_config.no_timestamps_token_id == prefix_ids(tokenizer)[-1]
    again = WhisperTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert WhisperFeatureExtractor.from_pretrained(tmp_path).chunk_length == SHAPE.window_s
