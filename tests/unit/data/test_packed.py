"""Corpora in tars: laid out they are their recordings, byte for byte, with their rows."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import DataError, MissingExtra
from speechadapt.data.manifest import read_manifest
from speechadapt.data.own import load_own
from speechadapt.data.packed import (
    MANIFEST,
    count_rows,
    is_packed,
    lay_out_first,
    packed_tars,
    unpack,
    unpack_tar,
)

GOLDEN = Path(__file__).parents[2] / "data" / "lhotse"  # written by lhotse 1.33

# lhotse leaves closing its tars to the collector
leaky = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def write_tar(path: Path, **files: bytes) -> Path:
    """Write a tar of files by stem."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{name}.wav")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def row(name: str, shard: int, **more: Any) -> dict[str, Any]:
    said = {"audio_filepath": f"{name}.wav", "duration": 1.0, "text": name, "shard_id": shard}
    return said | more


def write_listing(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


@pytest.fixture
def tarred(tmp_path: Path) -> Path:
    """A tarred corpus of NeMo: two tars, a recording of three parts, one row out of order."""
    folder = tmp_path / "tarred"
    write_tar(folder / "audio_0.tar", one=b"1" * 700, talk=b"2" * 90, other=b"not named")
    write_tar(folder / "audio_1.tar", two=b"3" * 10)
    parts = (row("talk", 0, offset=0.5), row("talk-sub1", 0, offset=2.0))
    rows = (parts[0], row("two", 1), row("one", 0), parts[1])
    write_listing(folder / "tarred_audio_manifest.json", *rows)
    write_listing(folder / "sharded_manifests" / "manifest_1.json", row("two", 1))
    return folder


def test_a_tarred_corpus_is_laid_out_in_the_order_of_its_rows(tarred: Path, tmp_path: Path) -> None:
    assert is_packed(tarred)
    found = read_manifest(unpack(tarred, tmp_path / "out"))
    assert [one.text for one in found] == ["talk", "two", "one", "talk-sub1"]
    assert [one.offset for one in found] == [0.5, 0, 0, 2.0]
    content = [(tmp_path / "out" / one.audio_filepath).read_bytes() for one in found]
    assert content == [b"2" * 90, b"3" * 10, b"1" * 700, b"2" * 90]
    assert [one.id for one in found] == ["talk.wav", "two.wav", "one.wav", "talk-sub1.wav"]
    laid_out = [path for path in (tmp_path / "out" / "audio").rglob("*") if path.is_file()]
    assert len(laid_out) == 3
    assert all(path.stat().st_mtime == zlib.crc32(path.read_bytes()) for path in laid_out)


def test_one_shards_listing_finds_its_tar_above_it(tarred: Path, tmp_path: Path) -> None:
    listing = tarred / "sharded_manifests" / "manifest_1.json"
    assert is_packed(listing)
    (found,) = read_manifest(unpack(listing, tmp_path / "out"))
    assert found.text == "two"


def test_what_is_laid_out_is_kept_until_its_source_changes(tarred: Path, tmp_path: Path) -> None:
    manifest = unpack(tarred, tmp_path / "out")
    manifest.write_text("")  # whoever wrote it anew would fill it
    assert unpack(tarred, tmp_path / "out") == manifest
    assert manifest.read_text() == ""
    write_tar(tarred / "audio_1.tar", two=b"4" * 10)
    found = read_manifest(unpack(tarred, tmp_path / "out"))
    assert (tmp_path / "out" / found[1].audio_filepath).read_bytes() == b"4" * 10


def test_a_recording_that_no_tar_holds_is_named(tarred: Path, tmp_path: Path) -> None:
    listing = tarred / "tarred_audio_manifest.json"
    write_listing(listing, row("one", 0), row("three", 1))
    with pytest.raises(DataError, match=r"'audio_1\.tar' lacks 1 recordings .* first 'three\.wav'"):
        unpack(tarred, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_missing_or_damaged_tar_is_named(tarred: Path, tmp_path: Path) -> None:
    whole = (tarred / "audio_0.tar").read_bytes()
    (tarred / "audio_0.tar").write_bytes(whole[:600])
    with pytest.raises(DataError, match=r"recordings of '.*tarred' cannot be read"):
        unpack(tarred, tmp_path / "out")
    (tarred / "audio_0.tar").unlink()
    with pytest.raises(DataError, match=r"'audio_0\.tar', which 'tarred_audio_manifest\.json'"):
        unpack(tarred, tmp_path / "out")


def test_a_wrong_row_is_named_by_its_line(tarred: Path, tmp_path: Path) -> None:
    wrong = row("two", 1) | {"duration": "long"}
    write_listing(tarred / "tarred_audio_manifest.json", row("one", 0), wrong)
    with pytest.raises(DataError, match=r"manifest\.json line 2: duration must be seconds"):
        unpack(tarred, tmp_path / "out")


def test_other_folders_and_manifests_are_not_packed(tmp_path: Path) -> None:
    plain = write_listing(tmp_path / "m.json", {"audio_filepath": "a.wav", "shard_id": 0})
    assert not is_packed(plain)
    assert not is_packed(write_listing(tmp_path / "list.json", [1]))  # type: ignore[arg-type]
    assert not is_packed(tmp_path)
    assert not is_packed(tmp_path / "none.json")
    shutil.copy(GOLDEN / "shar" / "cuts.000000.jsonl.gz", tmp_path)
    assert not is_packed(tmp_path)  # cuts without recordings


def test_training_says_what_to_do_first(tarred: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_own(tarred / "tarred_audio_manifest.json")
    assert str(caught.value) == lay_out_first(tarred / "tarred_audio_manifest.json")
    assert "speechadapt shards unpack" in str(caught.value)


def test_a_shar_folder_needs_lhotse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lhotse", None)
    assert is_packed(GOLDEN / "shar")
    with pytest.raises(MissingExtra, match=r"pip install 'speechadapt\[lhotse\]'"):
        unpack(GOLDEN / "shar", tmp_path / "out")


@leaky
def test_a_shar_folder_is_laid_out_as_lhotse_reads_it(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    from speechadapt.audio.io import decode_audio

    found = read_manifest(unpack(GOLDEN / "shar", tmp_path / "out"))
    cuts = list(lhotse.CutSet.from_shar(in_dir=GOLDEN / "shar"))
    assert [one.id for one in found] == [cut.id for cut in cuts]
    plain = read_manifest(GOLDEN / "cuts.jsonl")
    for one, cut, same in zip(found, cuts, plain, strict=True):
        assert (one.text, one.lang, one.speaker) == (same.text, same.lang, same.speaker)
        assert (one.offset, one.duration, one.extra) == (0.0, cut.duration, same.extra)
        decoded = decode_audio(tmp_path / "out" / one.audio_filepath, 16000)
        assert decoded.waveform.tolist() == cut.load_audio()[0].tolist()


@leaky
def test_a_shar_folder_with_too_few_recordings_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("lhotse")
    folder = Path(shutil.copytree(GOLDEN / "shar", tmp_path / "shar"))
    with tarfile.open(GOLDEN / "shar" / "recording.000000.tar") as tar:
        members = [(member, tar.extractfile(member)) for member in tar.getmembers()[:2]]
        with tarfile.open(folder / "recording.000000.tar", "w") as shorter:
            for member, content in members:
                shorter.addfile(member, content)
    with pytest.raises(DataError, match="has 3 cuts, but recordings of 2"):
        unpack(folder, tmp_path / "out")
    (folder / "recording.000001.tar").unlink()
    with pytest.raises(DataError, match="has 2 files of cuts and 1 of recordings"):
        unpack(folder, tmp_path / "out")


def test_one_tar_is_laid_out_with_the_rows_about_it(tarred: Path, tmp_path: Path) -> None:
    first, second = packed_tars(tarred)
    assert (count_rows(first), count_rows(second)) == (3, 1)
    (found,) = unpack_tar(second, tmp_path / "out") or []
    assert (found["id"], found["text"]) == ("two.wav", "two")
    assert Path(found["audio_filepath"]).read_bytes() == b"3" * 10
    names = [one["id"] for one in unpack_tar(first, tmp_path / "out") or []]
    assert names == ["talk.wav", "one.wav", "talk-sub1.wav"]
    other = write_tar(tmp_path / "audio_0.tar", x=b"1")
    assert (count_rows(other), unpack_tar(other, tmp_path / "out")) == (None, None)


def test_tars_of_other_fields_are_no_recordings(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "shar", tmp_path / "shar"))
    write_tar(folder / "features.000000.tar", x=b"1")
    kept = write_tar(tmp_path / "features.000000.tar", x=b"1")
    numbers = ("000000", "000001")
    assert packed_tars(tmp_path) == [kept, *(folder / f"recording.{n}.tar" for n in numbers)]
    assert [count_rows(tar) for tar in packed_tars(folder)] == [2, 1]


@leaky
def test_one_tar_of_a_shar_folder_is_laid_out(tmp_path: Path) -> None:
    pytest.importorskip("lhotse")
    (found,) = unpack_tar(GOLDEN / "shar" / "recording.000001.tar", tmp_path) or []
    assert (found["id"], found["duration"]) == ("b/silent.1", 0.3)
    assert Path(found["audio_filepath"]).is_relative_to(tmp_path / "audio" / "b")
