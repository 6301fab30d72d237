from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import DataError
from speechadapt.metrics.pairs import Joined, read_pairs


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def write_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def texts(joined: Joined) -> list[tuple[str, str | None, str | None]]:
    return [(pair.id, pair.reference, pair.hypothesis) for pair in joined.pairs]


def test_text_files_join_by_line_and_an_empty_line_is_an_empty_text(tmp_path: Path) -> None:
    joined = read_pairs(
        write_text(tmp_path / "ref.txt", "one two", "", "three"),
        write_text(tmp_path / "hyp.txt", "one", "", ""),
    )
    assert texts(joined) == [("1", "one two", "one"), ("2", "", ""), ("3", "three", "")]
    assert joined.joined_by == "line"


def test_text_files_of_other_lengths_are_refused_with_both_counts(tmp_path: Path) -> None:
    reference = write_text(tmp_path / "ref.txt", "one", "two", "three")
    hypothesis = write_text(tmp_path / "hyp.txt", "one", "three")
    with pytest.raises(DataError, match=r"'ref.txt' has 3 lines and 'hyp.txt' has 2"):
        read_pairs(reference, hypothesis)


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "ref.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert [pair.reference for pair in read_pairs(path, path).pairs] == ["one", "two"]


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ref.txt"
    path.write_bytes(b"one\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"ref.txt line 2 is not UTF-8"):
        read_pairs(path, path)


def test_folders_join_by_path_and_keep_what_is_missing(tmp_path: Path) -> None:
    write_text(tmp_path / "ref/a/x.txt", "one")
    write_text(tmp_path / "ref/b/x.txt", "two", "lines")
    write_text(tmp_path / "hyp/a/x.txt", "won")
    write_text(tmp_path / "hyp/c.txt", "extra")
    joined = read_pairs(tmp_path / "ref", tmp_path / "hyp")
    assert texts(joined) == [("a/x", "one", "won"), ("b/x", "two lines", None)]
    assert joined.extra == ("c",)


def test_json_lines_join_by_audio_path_whatever_their_order(tmp_path: Path) -> None:
    reference = write_rows(
        tmp_path / "ref.jsonl",
        {"audio_filepath": "a.wav", "text": "one", "speaker": "ann", "lang": "en"},
        {"audio_filepath": "b.wav", "text": "two"},
        {"audio_filepath": "c.wav", "text": None},
    )
    hypothesis = write_rows(
        tmp_path / "hyp.jsonl",
        {"audio_filepath": "c.wav", "pred_text": "sea"},
        {"audio_filepath": "b.wav", "pred_text": None},
        {"audio_filepath": "a.wav", "pred_text": "won"},
    )
    joined = read_pairs(reference, hypothesis)
    assert texts(joined) == [
        ("a.wav", "one", "won"),
        ("b.wav", "two", None),
        ("c.wav", None, "sea"),
    ]
    assert (joined.pairs[0].speaker, joined.pairs[0].language) == ("ann", "en")
    assert joined.joined_by == "audio_filepath"


def test_utterances_of_one_recording_join_by_offset_too(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"audio_filepath": "a.wav", "offset": 0.0, "text": "one"},
        {"audio_filepath": "a.wav", "offset": 2.5, "text": "two"},
    ]
    reference = write_rows(tmp_path / "ref.jsonl", *rows)
    heard = [
        {"audio_filepath": row["audio_filepath"], "offset": row["offset"], "pred_text": row["text"]}
        for row in reversed(rows)
    ]
    joined = read_pairs(reference, write_rows(tmp_path / "hyp.jsonl", *heard))
    assert texts(joined) == [("a.wav", "one", "one"), ("a.wav@2.5", "two", "two")]


def test_json_lines_without_a_common_path_join_by_id(tmp_path: Path) -> None:
    reference = write_rows(
        tmp_path / "ref.jsonl", {"audio_filepath": "/far/a.wav", "id": "u1", "text": "one"}
    )
    hypothesis = write_rows(
        tmp_path / "hyp.jsonl", {"audio_filepath": "a.wav", "id": "u1", "text": "won"}
    )
    joined = read_pairs(reference, hypothesis)
    assert texts(joined) == [("u1", "one", "won")]
    assert joined.joined_by == "id"


def test_a_manifest_joins_a_folder_of_texts_by_path(tmp_path: Path) -> None:
    reference = write_rows(
        tmp_path / "ref.jsonl",
        {"audio_filepath": "clips/a.flac", "text": "one"},
        {"audio_filepath": "clips/b.flac", "text": "two"},
    )
    write_text(tmp_path / "hyp/clips/a.txt", "won")
    joined = read_pairs(reference, tmp_path / "hyp")
    assert texts(joined) == [("clips/a", "one", "won"), ("clips/b", "two", None)]


def test_a_jobs_folder_holds_both_sides(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "transcripts.jsonl",
        {"audio_filepath": "a.wav", "text": "one", "pred_text": "won", "status": "ok"},
        {"audio_filepath": "b.wav", "text": "two", "pred_text": None, "status": "failed"},
    )
    expected = [("a.wav", "one", "won"), ("b.wav", "two", None)]
    assert texts(read_pairs(tmp_path)) == expected
    assert texts(read_pairs(tmp_path / "transcripts.jsonl")) == expected


def test_a_jobs_folder_serves_as_hypotheses_of_another_manifest(tmp_path: Path) -> None:
    job = tmp_path / "out"
    job.mkdir()
    write_rows(job / "transcripts.jsonl", {"audio_filepath": "a.wav", "pred_text": "won"})
    reference = write_rows(tmp_path / "ref.jsonl", {"audio_filepath": "a.wav", "text": "one"})
    assert texts(read_pairs(reference, job)) == [("a.wav", "one", "won")]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"audio_filepath": "a", "text": "x"}\n{"audio', "ref.jsonl line 2 is not JSON"),
        ('{"audio_filepath": "a", "text": "x"}\n[1]\n', "ref.jsonl line 2: a row is an object"),
        ('\n{"audio_filepath": "a", "text": 5}\n', "ref.jsonl line 2: text must be text or null"),
        ('{"audio_filepath": "a"}\n', "ref.jsonl line 1: 'text' is missing"),
        (
            '{"audio_filepath": "a", "text": "x"}\n' * 2,
            "ref.jsonl line 2: audio_filepath 'a' was already given in ref.jsonl line 1",
        ),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "ref.jsonl"
    path.write_text(content)
    hypothesis = write_rows(tmp_path / "hyp.jsonl", {"audio_filepath": "a", "pred_text": "x"})
    with pytest.raises(DataError, match=match):
        read_pairs(path, hypothesis)


def test_sides_that_share_no_name_are_refused_with_the_first_of_each(tmp_path: Path) -> None:
    reference = write_rows(tmp_path / "ref.jsonl", {"audio_filepath": "a.wav", "text": "one"})
    hypothesis = write_rows(tmp_path / "hyp.jsonl", {"audio_filepath": "b.wav", "pred_text": "x"})
    with pytest.raises(DataError, match=r"first are 'a.wav' and 'b.wav'"):
        read_pairs(reference, hypothesis)


def test_sides_of_other_kinds_are_refused(tmp_path: Path) -> None:
    reference = write_text(tmp_path / "ref.txt", "one")
    hypothesis = write_rows(tmp_path / "hyp.jsonl", {"audio_filepath": "b.wav", "pred_text": "x"})
    with pytest.raises(DataError, match="different kinds"):
        read_pairs(reference, hypothesis)


def test_a_single_file_must_hold_both_sides(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="score REF HYP"):
        read_pairs(write_text(tmp_path / "ref.txt", "one"))
    rows = write_rows(tmp_path / "ref.jsonl", {"audio_filepath": "a.wav", "text": "one"})
    with pytest.raises(DataError, match="'pred_text'; found audio_filepath, text"):
        read_pairs(rows)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    present = write_text(tmp_path / "ref.txt", "one")
    with pytest.raises(DataError, match=r"none\.txt' is neither a file nor a folder"):
        read_pairs(present, tmp_path / "none.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.txt file"):
        read_pairs(present, tmp_path / "empty")
