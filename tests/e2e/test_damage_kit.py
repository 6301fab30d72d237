"""Every way a recording can be spoiled, in one folder: the table holds and no good file suffers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.command import call
from tests.damage import THREE_HOURS_S, Damage, write_damage_kit, write_silence
from tests.e2e.fake_recogniser import HOOK

LONGER_THAN_THE_WINDOW_S = 20.0


@pytest.fixture(scope="module")
def kit(
    tmp_path_factory: pytest.TempPathFactory, demo_clips: Path
) -> tuple[int, dict[str, dict], tuple[Damage, ...], Path]:
    """Transcribe the kit once; return exit code, rows by name, the table and the output folder."""
    folder = tmp_path_factory.mktemp("kit")
    clip = demo_clips / "librispeech-2414-128291-0006.flac"
    table = write_damage_kit(clip, folder / "in", silence_s=LONGER_THAN_THE_WINDOW_S)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEECHADAPT_LOADER", HOOK)
        code = call("transcribe", folder / "in", "-o", folder / "out")
    lines = (folder / "out/transcripts.jsonl").read_bytes().splitlines()
    rows = [json.loads(line.decode("utf-8", "surrogateescape")) for line in lines]
    found = {row["audio_filepath"]: row for row in rows}
    assert len(found) == len(rows)
    return code, found, table, folder / "out"


def test_every_file_has_one_row_and_the_exit_code_tells(kit):
    code, found, table, _ = kit
    assert set(found) == {row.name for row in table}
    assert code == 3


def test_status_and_reason_are_those_of_the_table(kit):
    _, found, table, _ = kit
    wrong = []
    for row in table:
        got = found[row.name]
        # The stand-in names every sound a pitch, so the guards may doubt a good text.
        status = "ok" if got["status"] == "flagged" else got["status"]
        if (status, got["reason"]) != (row.status, row.reason):
            wrong.append(f"{row.name!r}: {got['status']} {got['reason']}")
        if not set(row.flags) <= set(got["flags"]):
            wrong.append(f"{row.name!r}: flags {got['flags']}")
    assert not wrong, "\n".join(wrong)


def test_good_files_are_transcribed_alike_in_every_container(kit):
    _, found, table, output = kit
    good = [row.name for row in table if row.has_speech]
    assert len(good) >= 15
    for name in good:
        assert found[name]["pred_text"].startswith("p"), name
        assert (output / os.path.splitext(name)[0]).parent.is_dir()
    assert found["eight_channels.wav"]["pred_text"] == found["good.flac"]["pred_text"]
    assert found["pcm_24.wav"]["pred_text"] == found["good.flac"]["pred_text"]


def test_partial_files_keep_the_text_of_what_could_be_decoded(kit):
    _, found, table, output = kit
    listed = (output / ".speechadapt/failed.jsonl").read_bytes().splitlines()
    failed = {json.loads(line.decode("utf-8", "surrogateescape"))["id"] for line in listed}
    for row in table:
        if row.status == "partial":
            assert found[row.name]["pred_text"], row.name
        assert (row.name in failed) == (row.status in ("partial", "failed")), row.name


def test_failed_files_have_no_text_and_no_outputs(kit):
    _, found, table, output = kit
    shared = {os.path.splitext(row.name)[0] for row in table if row.status != "failed"}
    for row in table:
        if row.status == "failed":
            assert found[row.name]["pred_text"] is None
            stem = os.path.splitext(row.name)[0]
            assert stem in shared or not (output / f"{stem}.txt").exists(), row.name


@pytest.mark.slow
def test_three_hours_of_silence_are_ok_and_empty(tmp_path, monkeypatch):
    write_silence(tmp_path / "in.flac", 16000, THREE_HOURS_S)
    monkeypatch.setenv("SPEECHADAPT_LOADER", HOOK)
    assert call("transcribe", tmp_path / "in.flac", "-o", tmp_path / "out") == 0
    row = json.loads((tmp_path / "out/transcripts.jsonl").read_text())
    assert (row["status"], row["pred_text"], row["flags"]) == ("ok", "", ["no_speech"])
    assert row["duration"] == THREE_HOURS_S
