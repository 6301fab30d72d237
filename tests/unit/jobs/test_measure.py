from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.core.errors import StoreError
from speechadapt.core.storage import Store
from speechadapt.jobs.measure import (
    FileFacts,
    Selection,
    measure_file,
    measure_files,
    measure_stored,
    planned_item,
    settle,
)
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.scan import Item

RATE = 16000


def save(path: Path, seconds: float) -> Path:
    soundfile.write(path, np.zeros(round(seconds * RATE)), RATE)
    return path


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_length_is_known_without_decoding(tmp_path: Path, suffix: str):
    facts = measure_file(save(tmp_path / f"a.{suffix}", 1.5))
    assert facts.header_s == pytest.approx(1.5)


def test_the_key_follows_size_and_time_of_change(tmp_path: Path):
    path = save(tmp_path / "a.wav", 1.0)
    first = measure_file(path).key
    assert measure_file(path).key == first
    os.utime(path, ns=(1, 1))
    second = measure_file(path).key
    save(path, 2.0)
    os.utime(path, ns=(1, 1))
    assert len({first, second, measure_file(path).key}) == 3


def test_files_that_cannot_be_read_are_no_error_here(tmp_path: Path):
    (tmp_path / "text.wav").write_text("no sound")
    assert measure_file(tmp_path / "missing.wav") == FileFacts("", None)
    assert measure_file(tmp_path / "text.wav").header_s is None


def test_a_file_of_many_rows_is_measured_once(tmp_path: Path, monkeypatch):
    path = str(save(tmp_path / "a.wav", 1.0))
    seen: list[Path] = []

    def note(path: Path) -> FileFacts:
        seen.append(path)
        return FileFacts("k", 1.0)

    monkeypatch.setattr("speechadapt.jobs.measure.measure_file", note)
    items = [PlanItem(name, "a", path, name) for name in ("x", "y")]
    assert measure_files(items) == [FileFacts("k", 1.0)] * 2
    assert len(seen) == 1


def test_what_exceeds_the_window_is_long():
    item = PlanItem("a", "a", "a", "a")
    window = Selection(window_s=10.0)
    assert not settle(item, FileFacts("k", 10.0), window).long
    assert settle(item, FileFacts("k", 10.5), window).long
    assert settle(item, FileFacts("k", 60.0), Selection()).long
    row = PlanItem("a", "a", "a", "a", whole=True)
    assert not settle(row, FileFacts("k", 60.0), Selection()).long
    assert settle(row, FileFacts("k", 60.0), window).long


def test_what_is_too_short_or_too_long_is_left_out_with_a_reason():
    item = PlanItem("a", "a", "a", "a")
    limits = Selection(min_duration_s=1.0, max_duration_s=5.0)
    assert settle(item, FileFacts("k", 0.5), limits).skip == "0.50 s, shorter than 1 s"
    assert settle(item, FileFacts("k", 9.0), limits).skip == "9.00 s, longer than 5 s"
    assert settle(item, FileFacts("k", 2.0), limits).skip == ""
    assert settle(item, FileFacts("k", None), limits).skip == ""


def test_a_scanned_item_keeps_what_the_manifest_said():
    item = Item("id", "row.wav", Path("/in/row.wav"), 1.0, 2.0, "words", "en", "s", True, "out/row")
    planned = planned_item(item)
    assert (planned.id, planned.path, planned.stem) == ("id", "/in/row.wav", "out/row")
    assert (planned.offset, planned.duration, planned.whole) == (1.0, 2.0, True)
    assert (planned.text, planned.lang, planned.speaker) == ("words", "en", "s")


def test_what_lies_behind_a_url_has_a_key_and_the_length_of_its_header(tmp_path: Path):
    store = Store("memory://measure")
    store.put("a.wav", save(tmp_path / "a.wav", 1.5))
    store.put("text.wav", b"no sound here")
    first = measure_stored("memory://measure/a.wav")
    assert first.header_s == 1.5
    assert measure_stored("memory://measure/a.wav") == first
    store.put("a.wav", tmp_path / "a.wav")
    assert measure_stored("memory://measure/a.wav").key != first.key
    assert measure_stored("memory://measure/text.wav").header_s is None
    items = [PlanItem(url, url, f"memory://measure/{url}", url) for url in ("gone.wav", "a.wav")]
    gone, there = measure_files(items)
    assert gone == FileFacts("", None)
    assert there.header_s == 1.5


def test_a_store_out_of_reach_is_no_missing_recording(monkeypatch):
    def fail(self, name):
        raise StoreError("no route")

    monkeypatch.setattr(Store, "stat", fail)
    with pytest.raises(StoreError, match="no route"):
        measure_stored("memory://measure/a.wav")
