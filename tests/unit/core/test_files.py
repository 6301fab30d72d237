"""Files are whole or absent, lines are appended, hashes depend on content alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from speechadapt.core import files


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.atomic_write_text(target, "old")

    def fail_half_way(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.atomic_write(target, fail_half_way)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_write_makes_its_folder_and_obeys_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.json"
    before = os.umask(0o027)
    try:
        files.atomic_write_json(target, {"ü": 1})
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o640
    assert target.read_text(encoding="utf-8") == '{\n  "ü": 1\n}\n'


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    odd = os.fsdecode(b"a\xff.wav")
    files.write_lines(tmp_path / "rows.jsonl", [{"audio_filepath": odd}])
    files.append_line(tmp_path / "rows.jsonl", {"audio_filepath": odd})
    rows = [row for _, row in files.read_lines(tmp_path / "rows.jsonl")]
    assert rows == [{"audio_filepath": odd}] * 2


def test_reading_lines_passes_over_blanks_and_names_the_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(files.read_lines(path)) == [(1, {"a": 1}), (3, {"a": 2})]
    path.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl line 2 is not JSON"):
        list(files.read_lines(path))


def test_appending_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for number in range(3):
        files.append_line(path, {"n": number})
    assert [row["n"] for _, row in files.read_lines(path)] == [0, 1, 2]


def test_hashes_are_sha256_and_blind_to_the_order_of_keys(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    assert files.hash_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    assert files.hash_bytes(b"") == hashlib.sha256(b"").hexdigest()
    assert files.hash_json({"a": 1, "b": [2]}) == files.hash_json({"b": [2], "a": 1})
    assert files.hash_json({"a": 1}) != files.hash_json({"a": "1"})
