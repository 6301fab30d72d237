"""`speechadapt transcribe` and `speechadapt job`, from arguments to files and exit code."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

import pytest

from tests.e2e.fake_recogniser import write_tone
from tests.e2e.jobs import Cli, journal, parse, tree


def transcribe(cli: Cli, source: Path, output: Path, *more: str) -> int:
    return cli("transcribe", source, "-o", output, "--no-vad", *more)


def rows(output: Path) -> list[dict]:
    return parse(output / "transcripts.jsonl")


def test_the_tree_is_mirrored_in_every_format_and_rows_stand_in_scan_order(cli, tones, tmp_path):
    output = tmp_path / "out"
    assert transcribe(cli, tones, output, "-f", "txt,srt,vtt,tsv,json") == 0
    for kind in ("txt", "srt", "vtt", "tsv", "json"):
        assert (output / f"deep/er/clip00.{kind}").is_file()
        assert (output / f"clip01.{kind}").is_file()
    assert (output / "clip01.txt").read_text() == "p210 l65\n"
    found = rows(output)
    names = [row["audio_filepath"] for row in found]
    assert names == sorted(names)
    assert len(names) == 7
    assert set(found[0]) == {
        "audio_filepath", "duration", "text", "pred_text", "flags", "status", "reason",
    }  # fmt: skip
    assert found[0] == {
        "audio_filepath": "clip01.wav",
        "duration": 0.65,
        "text": None,
        "pred_text": "p210 l65",
        "flags": [],
        "status": "ok",
        "reason": None,
    }


def test_json_has_whispers_fields_rounded(cli, tones, tmp_path):
    transcribe(cli, tones, tmp_path / "out")
    found = json.loads((tmp_path / "out/clip01.json").read_text())
    segment = found["segments"][0]
    assert (found["text"], found["language"]) == ("p210 l65", "en")
    assert [segment["start"], segment["end"]] == [0.0, 0.64]
    assert segment["words"][0] == {
        "word": "p210", "start": 0.0, "end": 0.32, "probability": 0.9,
    }  # fmt: skip


def test_a_second_run_does_nothing_twice(cli, tones, tmp_path):
    output = tmp_path / "out"
    transcribe(cli, tones, output)
    before, files = journal(output), tree(output)
    assert transcribe(cli, tones, output) == 0
    assert journal(output) == before
    assert tree(output) == files


def test_other_options_are_refused_with_a_difference(cli, tones, tmp_path, capsys):
    output = tmp_path / "out"
    transcribe(cli, tones, output, "--model", "first")
    capsys.readouterr()
    assert transcribe(cli, tones, output, "--model", "second", "--beam_size", "3") == 5
    message = capsys.readouterr().err
    assert "options.beam_size: None there, 3 now" in message
    assert "model.model: 'first' there, 'second' now" in message
    assert transcribe(cli, tones, output, "--model", "second", "--overwrite") == 0
    assert len(journal(output)) == 7


def test_outputs_are_equal_for_any_engine_and_texts_for_any_batch(cli, tones, tmp_path):
    transcribe(cli, tones, tmp_path / "serial")
    transcribe(cli, tones, tmp_path / "process", "--workers", "2", "--engine", "process")
    transcribe(cli, tones, tmp_path / "single", "--batch-size", "1")
    expected = tree(tmp_path / "serial")
    assert len(expected) == 2 * 7 + 1
    assert tree(tmp_path / "process") == expected
    assert [row["pred_text"] for row in rows(tmp_path / "single")] == [
        row["pred_text"] for row in rows(tmp_path / "serial")
    ]


def test_shards_together_write_what_one_run_writes(cli, tones, tmp_path):
    transcribe(cli, tones, tmp_path / "whole", "--batch-size", "2")
    output = tmp_path / "parts"
    assert transcribe(cli, tones, output, "--batch-size", "2", "--shard", "2/2") == 0
    assert not (output / "transcripts.jsonl").exists()
    assert cli("job", "merge", output) == 1
    assert transcribe(cli, tones, output, "--batch-size", "2", "--shard", "1/2") == 0
    assert tree(output) == tree(tmp_path / "whole")
    assert len({row["id"] for row in journal(output)}) == len(journal(output)) == 7
    (output / "transcripts.jsonl").unlink()
    assert cli("job", "merge", output) == 0
    assert tree(output) == tree(tmp_path / "whole")


def test_a_slurm_array_task_takes_its_shard(cli, tones, tmp_path, monkeypatch):
    for name, value in {"TASK_ID": "4", "TASK_MIN": "3", "TASK_COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_{name}", value)
    assert transcribe(cli, tones, tmp_path / "out", "--shard", "auto", "--batch-size", "2") == 0
    assert list((tmp_path / "out/.speechadapt/journal").glob("2-of-2-worker-0.jsonl"))


def test_an_item_the_model_fails_on_costs_no_other(cli, tones, tmp_path, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setenv("FAKE_FAIL_AT_HZ", "210")
    assert transcribe(cli, tones, output) == 3
    found = {row["audio_filepath"]: row for row in rows(output)}
    bad = found.pop("clip01.wav")
    assert (bad["status"], bad["reason"], bad["pred_text"]) == ("failed", "MODEL", None)
    assert {row["status"] for row in found.values()} == {"ok"}
    failed = parse(output / ".speechadapt/failed.jsonl")
    assert [row["message"] for row in failed] == ["ValueError: this pitch hurts"]


def test_failed_items_are_tried_again_only_when_asked(cli, tones, tmp_path, monkeypatch):
    output = tmp_path / "out"
    transcribe(cli, tones, tmp_path / "good")
    monkeypatch.setenv("FAKE_FAIL_AT_HZ", "210")
    transcribe(cli, tones, output)
    monkeypatch.delenv("FAKE_FAIL_AT_HZ")
    assert transcribe(cli, tones, output) == 3
    assert transcribe(cli, tones, output, "--retry-failed") == 0
    assert tree(output) == tree(tmp_path / "good")
    assert max(row["attempts"] for row in journal(output)) == 2


def test_job_retry_needs_no_inputs_and_sees_a_mended_file(cli, tones, tmp_path):
    output = tmp_path / "out"
    (tones / "broken.wav").write_text("no sound here")
    assert transcribe(cli, tones, output) == 3
    assert cli("job", "status", output) == 3
    write_tone(tones / "broken.wav", 400, 0.5)
    assert cli("job", "retry", output) == 0
    assert {row["audio_filepath"]: row["pred_text"] for row in rows(output)}[
        "broken.wav"
    ] == "p400 l50"
    assert cli("job", "status", output) == 0
    assert cli("job", "verify", output) == 0


def test_out_of_memory_halves_the_batch_and_changes_no_text(cli, tones, tmp_path, monkeypatch):
    transcribe(cli, tones, tmp_path / "roomy")
    monkeypatch.setenv("FAKE_OOM_ABOVE", "2")
    assert transcribe(cli, tones, tmp_path / "tight") == 0
    assert tree(tmp_path / "tight") == tree(tmp_path / "roomy")


@pytest.mark.slow
def test_a_worker_that_dies_costs_only_the_item_that_killed_it(cli, tones, tmp_path, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setenv("FAKE_DIE_AT_HZ", "230")
    assert transcribe(cli, tones, output, "--engine", "process", "--batch-size", "4") == 3
    found = {row["audio_filepath"]: row["status"] for row in rows(output)}
    assert found.pop("deep/er/clip03.wav") == "failed"
    assert set(found.values()) == {"ok"}
    assert cli("job", "verify", output) == 0


@pytest.mark.slow
def test_an_item_that_takes_too_long_is_given_up(cli, tones, tmp_path, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setenv("FAKE_HANG_AT_HZ", "230")
    assert transcribe(cli, tones, output, "--timeout", "1.5", "--batch-size", "1") == 3
    found = {row["audio_filepath"]: row for row in rows(output)}
    assert found.pop("deep/er/clip03.wav")["reason"] == "TIMEOUT"
    assert {row["status"] for row in found.values()} == {"ok"}


def test_an_output_that_vanished_is_made_again(cli, tones, tmp_path):
    output = tmp_path / "out"
    transcribe(cli, tones, output)
    files = tree(output)
    (output / "clip01.txt").unlink()
    assert cli("job", "verify", output) == 3
    assert transcribe(cli, tones, output) == 0
    assert tree(output) == files


def test_new_and_changed_files_are_picked_up(cli, tones, tmp_path):
    output = tmp_path / "out"
    transcribe(cli, tones, output)
    write_tone(tones / "new.wav", 500, 0.4)
    write_tone(tones / "clip01.wav", 600, 0.4)
    assert transcribe(cli, tones, output) == 0
    found = {row["audio_filepath"]: row["pred_text"] for row in rows(output)}
    assert found["new.wav"] == "p500 l40"
    assert found["clip01.wav"] == "p600 l40"
    assert len(journal(output)) == 9
    assert cli("job", "verify", output) == 0


def test_a_dry_run_prints_the_plan_and_writes_nothing(cli, tones, tmp_path, capsys):
    assert transcribe(cli, tones, tmp_path / "out", "--dry-run", "--batch-size", "4") == 0
    printed = capsys.readouterr().out
    assert "7 items" in printed
    assert "2 batches" in printed
    assert not (tmp_path / "out").exists()


def test_too_many_failures_stop_the_job(cli, tones, tmp_path):
    for name in ("a.wav", "b.wav", "c.wav"):
        (tones / name).write_text("no sound here")
    one = ("--batch-size", "1")
    assert transcribe(cli, tones, tmp_path / "few", "--max-failures", "30%", *one) == 3
    assert transcribe(cli, tones, tmp_path / "none", "--max-failures", "0", *one) == 4
    assert transcribe(cli, tones, tmp_path / "stop", "--on-error", "stop", *one) == 4
    assert not (tmp_path / "stop/transcripts.jsonl").exists()
    assert transcribe(cli, tones, tmp_path / "none", *one) == 3
    assert len(rows(tmp_path / "none")) == 10


def test_short_and_long_clips_are_left_out_when_asked(cli, tones, tmp_path):
    output = tmp_path / "out"
    assert transcribe(cli, tones, output, "--min-duration-s", "0.5") == 0
    statuses = [(row["status"], row["duration"] < 0.5) for row in rows(output)]
    assert set(statuses) == {("ok", False), ("skipped", True)}


def test_progress_can_be_json_lines(cli, tones, tmp_path, capsys):
    transcribe(cli, tones, tmp_path / "out", "--json-progress")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events][-2:] == ["progress", "summary"]
    assert events[-2]["items_done"] == events[-2]["items"] == 7
    assert events[-1]["statuses"] == {"ok": 7}


def test_scores_count_every_reference_and_name_normaliser_and_scorer(cli, tones, tmp_path, capsys):
    output = tmp_path / "out"
    (tones / "clip01.txt").write_text("P210, l65!")
    (tones / "clip02.txt").write_text("p220 wrong")
    (tones / "lost.wav").write_text("no sound here")
    (tones / "lost.txt").write_text("three words missing")
    assert transcribe(cli, tones, output) == 3
    score = json.loads((output / ".speechadapt/summary.json").read_text())["score"]
    assert score["references"] == 3
    assert score["missing_hypotheses"] == 1
    wer = score["wer"]
    assert (wer["deletions"], wer["substitutions"], wer["insertions"], wer["hits"]) == (3, 1, 0, 3)
    assert wer["rate"] == round(4 / 7, 5)
    printed = capsys.readouterr().out
    for part in ("57.14%", "jiwer 4", "verbatim 1", "counted as deletions", "RTF", str(output)):
        assert part in printed


def test_a_recording_longer_than_the_window_is_cut_and_its_times_mapped_back(cli, tmp_path):
    write_tone(tmp_path / "in/talk.wav", 300, 11.0)
    assert transcribe(cli, tmp_path / "in", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out/talk.json").read_text())
    segments = found["segments"]
    assert len(segments) >= 3
    assert segments[0]["start"] == 0.0
    assert segments[-1]["end"] == pytest.approx(11.0, abs=0.02)
    for before, after in itertools.pairwise(segments):
        assert after["start"] == pytest.approx(before["end"], abs=0.03)
    assert (tmp_path / "out/talk.txt").read_text().count("p300") == len(segments)


def test_manifest_rows_keep_their_string_and_offset(cli, tmp_path):
    write_tone(tmp_path / "audio/talk.wav", 300, 3.0)
    manifest = [
        {"audio_filepath": "audio/talk.wav", "offset": 0.5, "duration": 0.5, "speaker": "a"},
        {"audio_filepath": "audio/talk.wav", "offset": 1.0, "duration": 1.0, "text": "p300"},
    ]
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in manifest))
    assert transcribe(cli, path, tmp_path / "out") == 0
    found = rows(tmp_path / "out")
    assert [row["audio_filepath"] for row in found] == ["audio/talk.wav"] * 2
    assert [row["offset"] for row in found] == [0.5, 1.0]
    assert [row["pred_text"] for row in found] == ["p300 l50", "p300 l100"]
    assert found[0]["speaker"] == "a"


def test_silence_is_ok_with_an_empty_text_and_a_flag(cli, tmp_path):
    write_tone(tmp_path / "in/silent.wav", 0, 1.0)
    write_tone(tmp_path / "in/long.wav", 0, 9.0)
    assert cli("transcribe", tmp_path / "in", "-o", tmp_path / "out") == 0
    for row in rows(tmp_path / "out"):
        assert (row["status"], row["pred_text"], row["flags"]) == ("ok", "", ["no_speech"])
    assert (tmp_path / "out/silent.txt").read_text() == ""


def test_a_text_without_speech_by_voice_activity_is_flagged_and_kept(cli, tones, tmp_path):
    assert cli("transcribe", tones, "-o", tmp_path / "out") == 0
    for row in rows(tmp_path / "out"):
        assert (row["status"], row["flags"]) == ("flagged", ["no_speech"])
        assert row["pred_text"].startswith("p")


def test_two_drivers_do_not_meet(cli, tones, tmp_path, capsys):
    from speechadapt.jobs.folder import JobFolder

    with JobFolder(tmp_path / "out").lock("driver"):
        assert transcribe(cli, tones, tmp_path / "out") == 1
    assert "another run is at work" in capsys.readouterr().err


def test_a_disk_that_refuses_one_output_fails_that_item_alone(cli, tones, tmp_path):
    (tmp_path / "out/clip01.txt").mkdir(parents=True)
    assert transcribe(cli, tones, tmp_path / "out") == 3
    found = {row["audio_filepath"]: row for row in rows(tmp_path / "out")}
    assert found.pop("clip01.wav")["reason"] == "WRITE"
    assert {row["status"] for row in found.values()} == {"ok"}


def test_wrong_usage_exits_2_and_names_all_mistakes(cli, tones, tmp_path, capsys):
    assert transcribe(cli, tones, tmp_path / "out", "--workers", "0", "-f", "docx") == 2
    message = capsys.readouterr().err
    assert "--workers must be 1 or more, got 0." in message
    assert "docx" in message
    assert cli("transcribe", tmp_path / "nothing", "-o", tmp_path / "out") == 2


def test_timings_stand_in_the_journal_and_the_summary_alone(cli, tones, tmp_path):
    for name in ("one", "two"):
        transcribe(cli, tones, tmp_path / name)
        time.sleep(0.01)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    line = journal(tmp_path / "one")[0]
    assert {"model_s", "decode_s", "audio_s", "attempts"} <= line.keys()
    speed = json.loads((tmp_path / "one/.speechadapt/summary.json").read_text())["speed"]
    assert speed["end_to_end"]["rtf"] > 0
    assert speed["model"]["warm_up"]
    assert speed["environment"]["threads"] >= 1


def test_bytes_in_names_that_are_no_text_survive(cli, tmp_path):
    name = os.fsdecode(b"odd-\xff\n.wav")
    (tmp_path / "in").mkdir()
    write_tone(tmp_path / "plain.wav", 300, 0.5)
    (tmp_path / "plain.wav").rename(tmp_path / "in" / name)
    assert transcribe(cli, tmp_path / "in", tmp_path / "out") == 0
    assert (tmp_path / "out" / name.replace(".wav", ".txt")).is_file()
    assert transcribe(cli, tmp_path / "in", tmp_path / "out") == 0
    assert len(journal_bytes(tmp_path / "out")) == 1


def journal_bytes(output: Path) -> list[bytes]:
    paths = (output / ".speechadapt/journal").glob("*.jsonl")
    return [line for path in sorted(paths) for line in path.read_bytes().splitlines()]
