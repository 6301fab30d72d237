"""Manifests: rows come back as they were, wrong rows are named by their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import DataError
from speechadapt.data.manifest import Utterance, read_manifest, write_manifest


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
