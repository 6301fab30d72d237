"""Manifests: rows come back as they were, wrong rows are named by their line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import DataError
from speechadapt.data.manifest import (
    Utterance,
    is_manifest,
    manifest_stem,
    read_manifest,
    write_manifest,
)


def write_rows(path: Path, *rows: Any) -> Path:
    """Write a manifest of any rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    utterances = [
        Utterance("a.flac", 1.5, 0.0, "zéro", "fr", "s1", "a-1", {"licence": "CC0"}),
        Utterance("b.flac", None, 2.0, None, None, None, "b-2"),
    ]
    write_manifest(tmp_path / "m.jsonl", utterances)
    assert read_manifest(tmp_path / "m.jsonl") == utterances


def test_what_says_nothing_is_not_written() -> None:
    assert Utterance("a.flac").to_row() == {"audio_filepath": "a.flac"}
    assert Utterance("a.flac", offset=0.5).to_row()["offset"] == 0.5


def test_an_id_is_made_of_path_and_offset_where_none_is_given(tmp_path: Path) -> None:
    rows = ({"audio_filepath": "a.flac"}, {"audio_filepath": "a.flac", "offset": 1.5})
    found = read_manifest(write_rows(tmp_path / "m.jsonl", *rows))
    assert [utterance.id for utterance in found] == ["a.flac", "a.flac@1.5"]


def test_an_empty_text_is_a_reference_and_a_missing_one_is_none(tmp_path: Path) -> None:
    rows = ({"audio_filepath": "a.flac", "text": ""}, {"audio_filepath": "b.flac"})
    found = read_manifest(write_rows(tmp_path / "m.jsonl", *rows))
    assert [utterance.text for utterance in found] == ["", None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "a row is an object, got list"),
        ({"path": "a"}, "'audio_filepath' is missing; found path"),
        ({"audio_filepath": "a", "duration": "1"}, "duration must be seconds, got '1'"),
        ({"audio_filepath": "a", "offset": -1}, "offset must be 0 or more seconds, got -1"),
        ({"audio_filepath": "a", "duration": True}, "duration must be seconds, got True"),
        ({"audio_filepath": "a", "text": 5}, "text must be text, got 5"),
        ({"audio_filepath": "a", "speaker": [1]}, "speaker must be text or a number, got [1]"),
        ({"audio_filepath": ["a", "b"]}, "audio_filepath must be one path, got ['a', 'b']"),
        ({"id": "s", "recording_id": "r"}, "'audio_filepath' is missing; found id, recording_id."),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, row: Any, message: str) -> None:
    path = write_rows(tmp_path / "m.jsonl", {"audio_filepath": "ok"}, row)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"m.jsonl line 2: {message}")


def test_ten_wrong_rows_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "m.jsonl", *([{}] * 13))
    with pytest.raises(DataError, match=r"line 10: .*\.\.\. and 3 more\.") as caught:
        read_manifest(path)
    assert "line 11" not in str(caught.value)


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"m\.jsonl line 1 is not JSON"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_manifest_of_nemo_is_read_as_it_is(tmp_path: Path) -> None:
    rows = (
        {"audio_filepath": "a.wav", "duration": 2.5, "offset": 1, "text": "oui", "speaker": 7},
        {"audio_filepath": "b.wav", "duration": None, "text": "ja", "source_lang": "de",
         "target_lang": "de", "pnc": "no"},
        {"audio_filepath": "c.wav", "text": "yes", "source_lang": "de", "target_lang": "en"},
    )  # fmt: skip
    first, second, third = read_manifest(write_rows(tmp_path / "train_manifest.json", *rows))
    assert first == Utterance("a.wav", 2.5, 1.0, "oui", None, "7", "a.wav@1")
    assert (second.lang, second.duration, second.text) == ("de", None, "ja")
    assert second.extra["pnc"] == "no"
    assert (third.text, third.lang, third.extra["translation"]) == (None, "de", "yes")


def test_a_packed_manifest_is_read_and_a_damaged_one_named(tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "m.jsonl", {"audio_filepath": "a.wav"}, {"audio_filepath": 1})
    path = tmp_path / "m.jsonl.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(DataError, match=r"m\.jsonl\.gz line 2: audio_filepath must be one path"):
        read_manifest(path)
    path.write_bytes(gzip.compress(b"{\n"))
    with pytest.raises(DataError, match=r"m\.jsonl\.gz line 1 is not JSON"):
        read_manifest(path)
    packed = gzip.compress(plain.read_bytes())
    for damaged in (packed[:-12], plain.read_bytes(), packed[:12] + b"\xff\xff" + packed[14:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"m\.jsonl\.gz is damaged: .* Copy it again"):
            read_manifest(path)


def test_an_array_is_told_what_would_make_lines_of_it(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    for indent in (None, 2):
        path.write_text(json.dumps([{"audio_filepath": "a.wav"}], indent=indent))
        with pytest.raises(DataError, match=r"one JSON array; .* all\.json > all\.jsonl"):
            read_manifest(path)


def test_a_manifest_is_known_by_its_name() -> None:
    names = ("m.jsonl", "M.JSON", "cuts.jsonl.gz", "x.json.gz", "m.txt", "a.wav", "x.gz")
    assert [is_manifest(name) for name in names] == [True] * 4 + [False] * 3
    assert [manifest_stem(Path("f", name)) for name in names] == [
        "m", "M", "cuts", "x", "m", "a", "x",
    ]  # fmt: skip
