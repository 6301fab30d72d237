from __future__ import annotations

import os
from pathlib import Path

import pytest

from speechadapt.core.errors import DataError
from speechadapt.jobs.scan_paths import (
    MAX_TEXT_BYTES,
    as_path,
    is_audio_name,
    lexical,
    path_order,
    place_of,
    read_text,
    real_path,
    safe_stem,
)


def test_audio_is_known_by_its_suffix():
    assert is_audio_name("a/B.FLAC")
    assert not is_audio_name("a/b.txt")


def test_paths_are_sorted_by_their_parts():
    assert sorted(["a-b/c", "a/b", "a/B"], key=path_order) == ["a/B", "a/b", "a-b/c"]


@pytest.mark.parametrize(
    ("name", "folder", "place"),
    [
        ("../x.wav", "/in/rows", "/in/x.wav"),
        ("file:///data/x.wav", "/in", "/data/x.wav"),
        ("s3://b/x.wav", "/in", "s3://b/x.wav"),
        ("x.wav", "s3://b/rows", "s3://b/rows/x.wav"),
        ("/data/x.wav", "s3://b/rows", "/data/x.wav"),
    ],
)
def test_a_name_leads_on_from_its_folder(name, folder, place):
    assert place_of(name, folder) == place


def test_urls_stay_text_and_have_no_links(tmp_path: Path):
    os.symlink(tmp_path / "true", tmp_path / "link")
    assert as_path("/a") == Path("/a")
    assert as_path("s3://b/x") == real_path("s3://b/x") == "s3://b/x"
    assert real_path(str(tmp_path / "link")) == os.path.realpath(tmp_path / "true")


def test_a_path_within_a_url_is_found_like_any_other():
    assert os.path.relpath(lexical("s3://b/x/y.wav"), lexical("s3://b")) == "x/y.wav"
    assert lexical("/a/b") == "/a/b"


@pytest.mark.parametrize(
    ("name", "stem"),
    [("../a/b.wav", "a/b"), ("s3://b/x/y.wav", "b/x/y"), ("/in/x.wav", "in/x"), ("..", "item")],
)
def test_a_stem_stays_inside(name, stem):
    assert safe_stem(name) == stem


def test_a_text_is_read_where_there_is_one(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"words")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "long.txt").write_bytes(b"x" * (MAX_TEXT_BYTES + 1))
    assert read_text(str(tmp_path / "a.txt")) == b"words"
    assert read_text(str(tmp_path / "none.txt")) is None
    for name in ("folder.txt", "long.txt"):
        with pytest.raises(DataError, match="no text file below"):
            read_text(str(tmp_path / name))
