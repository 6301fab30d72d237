from __future__ import annotations

import json

import pytest

from speechadapt.core.errors import CheckpointError, DataError
from speechadapt.text.alphabet import Alphabet, english, read_alphabet


def test_english_has_29_symbols_and_the_blank_is_0():
    alphabet = english()
    assert len(alphabet) == 29
    assert alphabet.blank_id == 0
    assert alphabet.symbols[1:4] == ("|", "'", "a")


def test_encode_writes_one_delimiter_between_words_and_none_at_the_ends():
    alphabet = english()
    assert alphabet.encode("  ab \t a ") == [3, 4, 1, 3]
    assert alphabet.encode("   ") == []


def test_encode_takes_the_other_case_where_only_that_exists():
    upper = Alphabet(("<pad>", "|", "A", "B"))
    assert upper.encode("ab") == [2, 3]
    assert english().encode("AB") == [3, 4]


def test_encode_names_every_character_it_cannot_write():
    with pytest.raises(DataError, match=r"cannot write \['-', '7'\] of the text 'a-7'"):
        english().encode("a-7")


def test_decode_collapses_runs_drops_blanks_and_keeps_doubled_letters_split_by_a_blank():
    a, b = 3, 4
    assert english().decode([0, a, a, 0, a, 1, 1, b, 0]) == "aa b"


def test_decode_without_collapse_reads_labels_as_they_stand():
    assert english().decode([3, 3, 1, 4], collapse=False) == "aa b"


@pytest.mark.parametrize("text", ["", "a", "don't stop", "aa bb"])
def test_decode_inverts_encode(text):
    alphabet = english()
    assert alphabet.decode(alphabet.encode(text), collapse=False) == text


def test_write_then_read_gives_the_same_alphabet(tmp_path):
    english().write(tmp_path)
    assert read_alphabet(tmp_path) == english()


def test_transformers_reads_what_write_wrote(tmp_path):
    from transformers import Wav2Vec2CTCTokenizer

    english().write(tmp_path)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert tokenizer("don't go").input_ids == english().encode("don't go")
    assert tokenizer.pad_token_id == 0
    assert tokenizer.decode([3, 3, 0, 3, 1, 4]) == "aa b"


def test_a_published_vocabulary_with_its_pad_at_the_end_is_read(tmp_path):
    table = {"|": 0, "a": 1, "[UNK]": 2, "[PAD]": 3}
    (tmp_path / "vocab.json").write_text(json.dumps(table))
    roles = {"pad_token": "[PAD]", "unk_token": {"content": "[UNK]"}, "bos_token": None}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(roles))
    alphabet = read_alphabet(tmp_path)
    assert alphabet.blank_id == 3
    assert alphabet.special_ids == {2, 3}
    assert alphabet.decode([1, 2, 0, 1, 3]) == "a a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no vocab.json"),
        ("[", "is not JSON"),
        ("[]", "must hold an object"),
        ('{"<pad>": 0, "|": 2}', "without holes"),
        ('{"|": 0, "a": 1}', "no blank '<pad>'"),
        ('{"<pad>": "x"}', "map each symbol to its id"),
    ],
)
def test_a_bad_vocabulary_is_refused_with_its_fault(tmp_path, content, message):
    if content is not None:
        (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_alphabet(tmp_path)
