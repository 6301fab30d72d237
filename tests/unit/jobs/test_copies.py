from __future__ import annotations

import threading
from pathlib import Path

import pytest

from speechadapt.audio.io import probe
from speechadapt.core.errors import AudioError
from speechadapt.core.storage import Store
from speechadapt.jobs import copies as copies_module
from speechadapt.jobs.copies import Copies, header_copy
from speechadapt.jobs.plan import PlanItem
from tests.e2e.fake_recogniser import write_tone

URL = "memory://copies"


@pytest.fixture(autouse=True)
def bucket():
    store = Store(URL)
    store.delete(store.names())
    return store


def item(path: str) -> PlanItem:
    return PlanItem(path, path, path, path)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_local_item_is_passed_through(tmp_path: Path):
    given = item("/a/b.wav")
    with Copies(tmp_path / "in").near(given) as near:
        assert near is given
    assert not (tmp_path / "in").exists()


def test_a_copy_has_the_name_of_its_source_and_goes_when_it_may_not_be_kept(bucket, tmp_path: Path):
    bucket.put("a b.wav", b"sound")
    copies = Copies(tmp_path, kept_bytes=0)
    with copies.near(item(f"{URL}/a b.wav")) as near:
        assert Path(near.path).name == "a b.wav"
        assert Path(near.path).read_bytes() == b"sound"
        assert near.id == f"{URL}/a b.wav"
    assert files(tmp_path) == []


def test_copies_are_kept_up_to_an_amount_the_last_ones_longest(bucket, tmp_path: Path):
    for name in "abc":
        bucket.put(name, b"12345")
    copies = Copies(tmp_path, kept_bytes=10)
    for name in "abac":
        with copies.near(item(f"{URL}/{name}")):
            pass
    assert files(tmp_path) == ["a", "c"]
    bucket.delete("abc")
    with copies.near(item(f"{URL}/a")) as near:  # needs the store no more
        assert Path(near.path).read_bytes() == b"12345"
    copies.clear()
    assert files(tmp_path) == []


def test_a_copy_stays_while_anybody_reads_it(bucket, tmp_path: Path):
    bucket.put("a", b"12345")
    copies = Copies(tmp_path, kept_bytes=0)
    with copies.near(item(f"{URL}/a")) as near:
        with copies.near(item(f"{URL}/a")) as same:
            assert same.path == near.path
        assert files(tmp_path) == ["a"]


def test_readers_at_the_same_time_share_one_copy(bucket, tmp_path: Path):
    bucket.put("a", b"12345")
    copies, paths = Copies(tmp_path), []

    def read() -> None:
        with copies.near(item(f"{URL}/a")) as near:
            paths.append((near.path, Path(near.path).read_bytes()))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 8
    assert len(set(paths)) == 1


def test_a_missing_recording_is_unreadable_and_may_come_later(bucket, tmp_path: Path):
    copies = Copies(tmp_path)
    with pytest.raises(AudioError, match=r"'gone\.wav' cannot be opened: No such") as caught:
        with copies.near(item(f"{URL}/gone.wav")):
            raise AssertionError("there is nothing to lend")
    assert caught.value.reason == "UNREADABLE"
    bucket.put("gone.wav", b"1")
    with copies.near(item(f"{URL}/gone.wav")) as near:
        assert Path(near.path).read_bytes() == b"1"


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_header_reads_as_that_of_the_whole_recording(bucket, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(copies_module, "_HEAD_BYTES", 8192)
    path = tmp_path / f"tone.{suffix}"
    write_tone(path, 300, 6.0)
    size = path.stat().st_size
    bucket.put(path.name, path)
    with header_copy(f"{URL}/{path.name}", size) as near:
        assert probe(near) == probe(path)
        held = near.stat().st_blocks * 512
    assert not near.exists()
    assert (suffix == "ogg") or held < size  # what is left out takes no room


def test_the_header_of_a_cut_wav_states_what_the_whole_one_did(bucket, tmp_path: Path):
    write_tone(tmp_path / "tone.wav", 300, 6.0)
    data = (tmp_path / "tone.wav").read_bytes()[:-50_000]
    (tmp_path / "cut.wav").write_bytes(data)
    bucket.put("cut.wav", data)
    with header_copy(f"{URL}/cut.wav", len(data)) as near:
        assert probe(near) == probe(tmp_path / "cut.wav")
    assert probe(tmp_path / "cut.wav").header_s == pytest.approx(6.0)


def test_an_empty_recording_has_an_empty_copy(bucket):
    bucket.put("empty.wav", b"")
    with header_copy(f"{URL}/empty.wav", 0) as near:
        assert near.stat().st_size == 0
