from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from speechadapt.core.errors import CheckpointError, DataError
from speechadapt.decoders.masked_diffusion.vocabulary import (
    Vocabulary,
    llama_vocabulary,
    own_vocabulary,
    read_vocabulary,
    train_tokenizer,
)

TEXTS = ["turn the light on", "turn the light off", "the light is on", "naïve café"] * 3


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return own_vocabulary(train_tokenizer(TEXTS, 290))


def llama(folder: Path) -> Tokenizer:
    """A SentencePiece-like tokenizer with Llama's special tokens, written to a folder."""
    pieces = ["<unk>", "<s>", "</s>", "\u2581", *"abcdefgh", "\u2581a", "\u2581b", "cd"]
    merges = [("\u2581", "a"), ("\u2581", "b"), ("c", "d")]
    tokenizer = Tokenizer(
        models.BPE({piece: at for at, piece in enumerate(pieces)}, merges, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in pieces[:3]])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.mark.parametrize("text", ["turn the light on", "a café", "", "  turn \n on ", "日本 語"])
def test_texts_come_back_with_single_spaces(vocabulary: Vocabulary, text: str) -> None:
    tokens = vocabulary.encode(text)
    assert vocabulary.text(tokens) == " ".join(text.split())
    assert not set(tokens) & vocabulary.specials


def test_words_are_the_text_s_words(vocabulary: Vocabulary) -> None:
    for text in [*TEXTS[:4], "unseen wörds here"]:
        tokens = vocabulary.encode(text)
        groups = vocabulary.words(tokens)
        assert [place for group in groups for place in group] == list(range(len(tokens)))
        spelled = [vocabulary.text([tokens[place] for place in group]) for group in groups]
        assert spelled == text.split()


def test_every_white_space_of_a_token_begins_a_word() -> None:
    vocabulary = own_vocabulary(train_tokenizer([], 258))
    for text in ("a\tb", "a\nb", "a\x1cb"):
        tokens = vocabulary.tokenizer.encode(text).ids
        assert len(vocabulary.words(tokens)) == 2


def test_a_text_ends_at_the_first_pad(vocabulary: Vocabulary) -> None:
    start, pad = vocabulary.start_id, vocabulary.pad_id
    assert vocabulary.until_end([start, 5, 6, pad, 7, pad]) == [5, 6]
    assert vocabulary.until_end([start, 5, 6]) == [5, 6]
    assert vocabulary.until_end([start, pad, 6]) == []


def test_start_and_unspelled_tokens_are_forbidden_and_the_pad_is_not(
    vocabulary: Vocabulary,
) -> None:
    assert vocabulary.forbidden == (vocabulary.start_id,)
    wider = Vocabulary(vocabulary.tokenizer, 1, 0, vocabulary.size + 2)
    assert wider.forbidden == (1, vocabulary.size, vocabulary.size + 1)


def test_a_tokenizer_of_another_model_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(CheckpointError, match=rf"has {vocabulary.size} tokens, the model writes 9"):
        Vocabulary(vocabulary.tokenizer, 1, 0, 9)
    with pytest.raises(CheckpointError, match="the pad token 400 is none of"):
        Vocabulary(vocabulary.tokenizer, 1, 400, 300)


def test_a_vocabulary_is_read_from_its_folder(vocabulary: Vocabulary, tmp_path: Path) -> None:
    config = {"vocab_size": vocabulary.size, "bos_token_id": 1, "pad_token_id": 0}
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        read_vocabulary(tmp_path, config)
    vocabulary.tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert read_vocabulary(tmp_path, config).encode("turn on") == vocabulary.encode("turn on")
    with pytest.raises(CheckpointError, match=r"must name vocab_size, bos_token_id"):
        read_vocabulary(tmp_path, {"vocab_size": 3})
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        read_vocabulary(tmp_path, config)


def test_too_few_tokens_for_the_bytes_are_refused() -> None:
    with pytest.raises(DataError, match="258 tokens or more, 257 were asked for"):
        train_tokenizer([], 257)


def test_a_llama_tokenizer_pads_with_its_end_token(tmp_path: Path) -> None:
    llama(tmp_path)
    found = llama_vocabulary(tmp_path, 32)
    assert (found.start_id, found.pad_id) == (1, 2)
    tokens = found.encode("a bcd")
    assert found.text(tokens) == "a bcd"
    assert [len(group) for group in found.words(tokens)] == [1, 2]
    assert found.forbidden == (0, 1, *range(15, 32))


def test_a_tokenizer_without_llama_s_tokens_is_refused(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has no tokens <s> and </s>"):
        llama_vocabulary(tmp_path)
