from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from speechadapt.jobs.commit import ItemFiles, commit


def test_files_of_all_items_appear_and_nothing_is_left_in_staging(tmp_path: Path):
    items = [
        ItemFiles("a", {"deep/a.txt": "first\n", "deep/a.json": "{}"}),
        ItemFiles("b", {"b.txt": ""}),
    ]
    assert commit(tmp_path / "out", tmp_path / "staging", items) == {}
    assert (tmp_path / "out/deep/a.txt").read_text() == "first\n"
    assert (tmp_path / "out/b.txt").read_text() == ""
    assert list((tmp_path / "staging").iterdir()) == []


def test_files_are_on_the_disk_before_they_are_renamed_and_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    rename = Path.replace

    def flush(file: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")

    def watch(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    (tmp_path / "made").write_bytes(b"sound")
    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", watch)
    files = {"a.txt": "x", "deep/a.flac": tmp_path / "made"}
    assert commit(tmp_path / "out", tmp_path / "staging", [ItemFiles("a", files)]) == {}
    assert events == ["file", "file", "rename", "rename", "folder", "folder"]


def test_an_item_that_cannot_be_written_names_itself_and_spares_the_others(tmp_path: Path):
    (tmp_path / "out/a.txt").mkdir(parents=True)
    items = [ItemFiles("a", {"a.txt": "x"}), ItemFiles("b", {"b.txt": "y"})]
    problems = commit(tmp_path / "out", tmp_path / "staging", items)
    assert list(problems) == ["a"]
    assert "a.txt" in problems["a"]
    assert (tmp_path / "out/b.txt").read_text() == "y"
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_a_problem_of_that_item(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/deep").write_text("a file")
    problems = commit(tmp_path / "out", tmp_path / "s", [ItemFiles("a", {"deep/a.txt": "x"})])
    assert list(problems) == ["a"]


def test_undecodable_bytes_in_a_text_are_written_back_as_they_were(tmp_path: Path):
    commit(tmp_path, tmp_path / "s", [ItemFiles("a", {"a.txt": "\udcff"})])
    assert (tmp_path / "a.txt").read_bytes() == b"\xff"
