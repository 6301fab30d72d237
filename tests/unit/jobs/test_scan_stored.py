from __future__ import annotations

import json

import pytest

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.core.storage import Store
from speechadapt.jobs.scan import scan
from speechadapt.jobs.scan_paths import MAX_TEXT_BYTES
from speechadapt.jobs.scan_stored import StoredInputs

URL = "memory://scan"


@pytest.fixture
def bucket():
    store = Store(URL)
    store.delete(store.names())

    def put(*names: str, content: bytes = b"") -> Store:
        for name in names:
            store.put(name, content)
        return store

    return put


def names(url: str, **settings) -> list[str]:
    return [item.audio_filepath for item in scan([url], **settings).items]


def test_a_folder_is_walked_in_the_order_of_its_parts(bucket):
    bucket("b.wav", "a/c.flac", "a-b/d.wav", "notes.md", ".hidden/e.wav", "a/.f.wav")
    items = scan([URL]).items
    assert [item.audio_filepath for item in items] == ["a/c.flac", "a-b/d.wav", "b.wav"]
    assert [item.path for item in items] == [f"{URL}/{item.audio_filepath}" for item in items]
    assert [item.output_stem for item in items] == ["a/c", "a-b/d", "b"]
    assert names(f"{URL}/") == names(URL)


def test_the_output_is_not_walked_into(bucket):
    bucket("in/a.wav", "out/a.wav")
    assert names(URL, output=f"{URL}/out") == ["in/a.wav"]
    assert names(f"{URL}/in", output=f"{URL}/out") == ["a.wav"]


def test_outputs_beside_their_inputs_are_refused(bucket):
    bucket("in/a.wav")
    with pytest.raises(ConfigError, match="would land beside it"):
        scan([f"{URL}/in"], output=f"{URL}/in")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.wav", ["a.wav", "b.wav"]),
        ("*/c.wav", ["c.wav"]),
        ("**/*.wav", ["a.wav", "b.wav", "deep/c.wav"]),
        ("de*", ["c.wav"]),
        ("*.ogg", None),
    ],
)
def test_globs_match_files_and_folders(bucket, pattern, found):
    bucket("a.wav", "b.wav", "a.md", "deep/c.wav")
    if found is None:
        with pytest.raises(ConfigError, match="found none"):
            names(f"{URL}/{pattern}")
    else:
        assert names(f"{URL}/{pattern}") == found


def test_a_file_is_taken_whatever_its_name_and_a_missing_one_is_refused(bucket):
    bucket("odd.name")
    assert names(f"{URL}/odd.name") == ["odd.name"]
    with pytest.raises(ConfigError, match=f"input '{URL}/gone.wav' does not exist"):
        scan([f"{URL}/gone.wav"])


def test_texts_beside_recordings_are_references(bucket):
    bucket("in/a.wav", "in/b.wav", "in/c.wav", "in/d.wav")
    bucket("in/a.txt", content=b"\xef\xbb\xbfsome  words\n")
    bucket("in/c.txt", content=b"\xff")
    bucket("in/d.txt", content=b"x" * (MAX_TEXT_BYTES + 1))
    found = scan([f"{URL}/in"])
    assert [item.text for item in found.items] == ["some words", None, None, None]
    assert len(found.problems) == 2
    assert "it is not UTF-8" in str(found.problems[0])
    assert "longer than" in str(found.problems[1])
    assert scan([f"{URL}/in/a.wav"]).items[0].text == "some words"


def test_manifests_and_lists_lead_to_urls_and_paths(bucket):
    rows = [
        {"audio_filepath": "x.wav", "text": "words"},
        {"audio_filepath": "s3://bucket/deep/y.wav"},
        {"audio_filepath": "/data/z.wav"},
    ]
    bucket("m/rows.jsonl", content="\n".join(map(json.dumps, rows)).encode())
    bucket("m/list.txt", content=b"x.wav\n\nfile:///data/y.wav\n")
    items = scan([f"{URL}/m/rows.jsonl"]).items
    assert [str(item.path) for item in items] == [
        f"{URL}/m/x.wav", "s3://bucket/deep/y.wav", "/data/z.wav",
    ]  # fmt: skip
    assert [item.output_stem for item in items] == ["x", "bucket/deep/y", "data/z"]
    assert items[0].from_manifest
    listed = scan([f"{URL}/m/list.txt"]).items
    assert [str(item.path) for item in listed] == [f"{URL}/m/x.wav", "/data/y.wav"]


def test_a_text_named_with_its_recording_is_no_list(bucket):
    bucket("a.wav", "a.txt")
    assert names(f"{URL}/a.wav") == ["a.wav"]
    both = scan([f"{URL}/a.wav", f"{URL}/a.txt"])
    assert [item.audio_filepath for item in both.items] == ["a.wav"]


def test_a_malformed_manifest_names_its_line(bucket):
    bucket("rows.jsonl", content=b'{"audio_filepath": "a.wav"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl line 2"):
        scan([f"{URL}/rows.jsonl"])


def test_local_and_stored_inputs_stand_side_by_side(bucket, tmp_path):
    bucket("a.wav")
    (tmp_path / "b.wav").touch()
    items = scan([URL, f"file://{tmp_path}"]).items
    assert [str(item.path) for item in items] == [f"{URL}/a.wav", str(tmp_path / "b.wav")]
    assert len({item.output_stem for item in items}) == 2


def test_what_was_listed_is_not_asked_for_again(bucket, monkeypatch):
    bucket("in/a.wav")
    inputs = StoredInputs(None)
    inputs.expand(f"{URL}/in")

    def fail(self, name):
        raise AssertionError("asked")

    monkeypatch.setattr(Store, "stat", fail)
    assert inputs.has(f"{URL}/in/a.wav")
    assert not inputs.has(f"{URL}/in/a.txt")
