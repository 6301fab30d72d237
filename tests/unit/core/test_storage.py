from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from speechadapt.core import storage
from speechadapt.core.errors import ConfigError, MissingExtra, StoreError
from speechadapt.core.storage import Store, is_url, join_url, plain_path, split_url

SIZE = 40


class Growing(MemoryFileSystem):
    """Shows an upload while it grows; `look` is called each time something changed."""

    cachable = False
    look = staticmethod(lambda: None)

    def __init__(self, fail: str = "") -> None:
        super().__init__(global_store=False)
        self.fail = fail

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        for end in range(0, len(value) + 1, SIZE // 4):
            super().pipe_file(path, value[:end])
            self.look()
            if self.fail == "upload" and end:
                raise PermissionError(path)

    def cp_file(self, path1, path2, **kwargs):
        raise AssertionError("a copy shows while it grows")

    def mv(self, path1, path2, **kwargs):
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if path2 in self.store:
            raise FileExistsError(path2)
        self.store[path2] = self.store.pop(path1)
        self.look()


class Moves(MemoryFileSystem):
    """An object store: an upload shows when it is complete, a move copies and deletes."""

    cachable = False

    def __init__(self) -> None:
        super().__init__(global_store=False)

    def mv(self, path1, path2, **kwargs):
        raise AssertionError("a move shows two files, or half of one")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(storage, "WAITS_S", (0.0,) * 3)


@pytest.fixture
def store(monkeypatch):
    """Open a store on a file system that is made here."""

    def opened(inner, url="memory://root"):
        monkeypatch.setattr(storage, "_open", lambda url: (inner, "/base"))
        return Store(url)

    return opened


@pytest.fixture
def memory(store):
    return store(MemoryFileSystem(global_store=False, skip_instance_cache=True))


@pytest.mark.parametrize("text", ["s3://bucket/a", "gs://b", "hf://datasets/a/b", "memory://x"])
def test_what_lies_behind_a_url(text):
    assert is_url(text)


@pytest.mark.parametrize(
    "text", ["/a/b", "a", "file:///a", "C://a", "a b://c", "*.wav", "LOCAL:///a"]
)
def test_what_is_a_path(text):
    assert not is_url(text)


def test_urls_are_joined_and_split():
    assert plain_path("file:///a/b c") == "/a/b c"
    assert plain_path("s3://a") == "s3://a"
    assert join_url("s3://b/x", "../y/z.wav") == "s3://b/y/z.wav"
    assert join_url("s3://b/x", "gs://c/d") == "gs://c/d"
    assert join_url("s3://b/x", "/data/a.wav") == "/data/a.wav"
    assert split_url("s3://b/x/y.wav") == ("s3://b/x", "y.wav")
    assert split_url("memory://y.wav") == ("memory://", "y.wav")


def test_files_are_written_listed_read_and_deleted(memory, tmp_path: Path):
    (tmp_path / "local").write_bytes(b"from a file")
    memory.put("deep/er/b", b"0123456789")
    memory.put("a", tmp_path / "local")
    assert memory.names() == ["a", "deep/er/b"]
    assert memory.names("deep") == ["deep/er/b"]
    assert memory.names("nowhere") == []
    assert memory.read("deep/er/b", 2, 5) == b"234"
    assert memory.stat("a").size == 11
    assert (memory.exists("a"), memory.exists("deep"), memory.exists("b")) == (True, False, False)
    memory.delete(["a", "gone"])
    assert memory.names() == ["deep/er/b"]


@pytest.mark.parametrize("marker", ["", "/"])
def test_the_top_of_a_store_is_a_folder_too(monkeypatch, marker):
    class Top(MemoryFileSystem):  # paths of S3 begin with the bucket, those in memory with a slash
        root_marker = marker

        def find(self, path, **settings):
            return [found.lstrip("/") if not marker else found for found in super().find(path)]

    inner = Top(global_store=False, skip_instance_cache=True)
    monkeypatch.setattr(storage, "_open", lambda url: (inner, ""))
    top = Store("s3://")
    top.put("bucket/a", b"1")
    assert top.names() == ["bucket/a"]
    assert top.read("bucket/a") == b"1"


def test_a_version_changes_with_the_content(memory):
    memory.put("a", b"one")
    before = memory.stat("a")
    memory.put("a", b"two")
    assert memory.stat("a").size == before.size
    assert memory.stat("a") != before


def test_a_file_is_fetched_in_blocks(memory, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(storage, "_BLOCK", 3)
    memory.put("a", b"0123456789")
    memory.put("empty", b"")
    for name, content in (("a", b"0123456789"), ("empty", b"")):
        memory.fetch(name, tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


def test_one_of_several_creates_a_file(memory):
    assert memory.create("a", b"mine")
    assert not memory.create("a", b"yours")
    assert memory.read("a") == b"mine"


def test_a_creation_whose_answer_was_lost_is_ones_own(store):
    class Mute(MemoryFileSystem):
        lost = True

        def pipe_file(self, path, value, mode="overwrite", **kwargs):
            super().pipe_file(path, value, mode)
            if self.lost:
                self.lost = False
                raise ConnectionResetError("gone")

    quiet = store(Mute(global_store=False, skip_instance_cache=True))
    assert quiet.create("a", b"mine")


def test_a_missing_file_is_said_to_be_missing_at_once(memory, tmp_path: Path):
    for call in (memory.stat, memory.read, lambda name: memory.fetch(name, tmp_path / "x")):
        with pytest.raises(FileNotFoundError, match="No such file"):
            call("gone")


@pytest.mark.parametrize(("failures", "calls"), [(3, 4), (4, 4)])
def test_a_call_is_repeated_and_then_given_up(store, failures, calls):
    class Cut(MemoryFileSystem):
        count = 0

        def cat_file(self, path, start=None, end=None, **kwargs):
            self.count += 1
            if self.count <= failures:
                raise RuntimeError("a library's own error")  # not all are OSError
            return b"there"

    inner = Cut(global_store=False, skip_instance_cache=True)
    cut = store(inner)
    if failures < 4:
        assert cut.read("a") == b"there"
    else:
        text = "cannot read 'a' in 'memory://root', tried 4 times: RuntimeError: a library's own"
        with pytest.raises(StoreError, match=text):
            cut.read("a")
    assert inner.count == calls


def test_an_object_store_writes_once_and_moves_nothing(store, tmp_path: Path):
    bucket = store(Moves(), "s3://bucket")
    bucket.put("a", b"one")
    bucket.put("a", b"two")
    assert (bucket.names(), bucket.read("a")) == (["a"], b"two")


def test_where_uploads_show_while_they_grow_no_half_file_is_ever_seen(store):
    inner = Growing()
    host = store(inner, "sftp://host")
    seen = []
    inner.look = lambda: seen.append({name: len(host.read(name)) for name in host.names()})
    host.put("deep/a", b"x" * SIZE)
    host.put("deep/a", b"y" * SIZE)
    assert {size for files in seen for size in files.values()} == {SIZE}
    assert host.read("deep/a") == b"y" * SIZE
    assert list(inner.store) == ["/base/deep/a"]


def test_an_upload_that_fails_leaves_what_was_there(store):
    inner = Growing()
    host = store(inner, "sftp://host")
    host.put("a", b"x" * SIZE)
    inner.fail = "upload"
    with pytest.raises(PermissionError):
        host.put("a", b"y" * SIZE)
    assert {name: file.getvalue() for name, file in inner.store.items()} == {"/base/a": b"x" * SIZE}


def test_a_store_that_can_show_half_a_file_is_not_written_to(store):
    inner = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    store(inner, "s3://bucket").check_writable()
    store(Growing(), "sftp://host").check_writable()
    with pytest.raises(ConfigError, match="ftpx:// shows files while they"):
        store(inner, "ftpx://host").check_writable()


def test_who_decides_on_creation():
    assert Store("memory://x").conditional
    assert not Store("file:///x").conditional


def test_an_unknown_scheme_is_named():
    with pytest.raises(ConfigError, match="nope://a"):
        Store("nope://a")


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtra, match=r"'s3://b/a' needs the extra 'remote'"):
        Store("s3://b/a")


def test_local_jobs_do_not_import_fsspec(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path\n"
        "from speechadapt.jobs.folder import find_folder\n"
        "from speechadapt.jobs.scan import scan\n"
        "find_folder(sys.argv[1]).lock('plan').__enter__()\n"
        "print('fsspec' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout == "False\n"
