from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from speechadapt.core.errors import DataError
from speechadapt.data.shard_tar import Sample, write_shard
from speechadapt.jobs.shard_unpack import unpack_shard


def test_recordings_and_what_is_known_about_them_are_laid_out(tmp_path):
    known = {"text": "not this", "lang": "en", "speaker": "s", "other": 1}
    samples = [
        Sample("a/one", {"flac": b"one", "txt": b"hello\n"}),
        Sample("two", {"json": json.dumps(known).encode(), "wav": b"two!"}),
    ]
    write_shard(tmp_path / "0.tar", samples)
    rows = unpack_shard(tmp_path / "0.tar", tmp_path / "in")
    assert rows == [
        {"audio_filepath": str(tmp_path / "in/a/one.flac"), "id": "a/one", "text": "hello"},
        {
            "audio_filepath": str(tmp_path / "in/two.wav"),
            "id": "two",
            "text": "not this",
            "lang": "en",
            "speaker": "s",
        },
    ]
    assert (tmp_path / "in/two.wav").read_bytes() == b"two!"


def test_unpacking_again_changes_nothing_and_mends_half_a_file(tmp_path):
    write_shard(tmp_path / "0.tar", [Sample("one", {"wav": b"whole"})])
    path = tmp_path / "in" / "one.wav"
    unpack_shard(tmp_path / "0.tar", tmp_path / "in")
    before = path.stat()
    path.write_bytes(b"who")
    unpack_shard(tmp_path / "0.tar", tmp_path / "in")
    assert path.read_bytes() == b"whole"
    assert (path.stat().st_size, path.stat().st_mtime) == (before.st_size, before.st_mtime)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("one.txt", "has no recording; found txt"), ("../one.wav", "leads out of the folder")],
)
def test_what_is_no_recording_or_leads_elsewhere_is_refused(tmp_path, name, problem):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(DataError, match=problem):
        unpack_shard(tmp_path / "0.tar", tmp_path / "in")
    assert "one.wav" not in os.listdir(tmp_path)


def test_a_json_that_is_none_names_its_sample(tmp_path):
    write_shard(tmp_path / "0.tar", [Sample("one", {"wav": b"x", "json": b"{"})])
    with pytest.raises(DataError, match=r"'one' in '0\.tar' cannot be read"):
        unpack_shard(tmp_path / "0.tar", tmp_path / "in")


def test_a_tar_of_nemo_comes_with_the_rows_about_it(tmp_path):
    write_shard(tmp_path / "audio_3.tar", [Sample("one", {"wav": b"one"})])
    row = {"audio_filepath": "one.wav", "shard_id": 3, "text": "hello", "duration": 1.0}
    (tmp_path / "tarred_audio_manifest.json").write_text(json.dumps(row))
    (found,) = unpack_shard(tmp_path / "audio_3.tar", tmp_path / "in")
    assert (found["id"], found["text"]) == ("one.wav", "hello")
    assert Path(found["audio_filepath"]).read_bytes() == b"one"
