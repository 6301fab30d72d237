"""`speechadapt restore` and `speechadapt job`, from arguments to files and exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.models.restorer_tiny import write_tiny_restorer
from tests.command import call
from tests.e2e import fake_recogniser, fake_restorer
from tests.e2e.fake_recogniser import write_tone
from tests.e2e.jobs import journal, parse, tree


@pytest.fixture
def hook() -> str:
    return fake_restorer.HOOK


def rows(output: Path) -> dict[str, dict]:
    return {row["audio_filepath"]: row for row in parse(output / "restored.jsonl")}


def test_the_tree_is_mirrored_and_a_row_says_what_was_done(cli, tones, tmp_path, capsys):
    output = tmp_path / "out"
    assert cli("restore", tones, "-o", output, "--suffix", "-clean", "--sample-rate", "8000") == 0
    samples, rate = soundfile.read(output / "deep/er/clip00-clean.flac")
    source, _ = soundfile.read(tones / "deep/er/clip00.wav")
    assert (rate, len(samples)) == (8000, len(source) // 2)
    assert np.abs(samples).max() == pytest.approx(0.15, abs=0.01)
    assert rows(output)["clip01.wav"] == {
        "audio_filepath": "clip01.wav",
        "duration": 0.65,
        "text": None,
        "pred_text": None,
        "flags": [],
        "status": "ok",
        "reason": None,
        "restored_filepath": "clip01-clean.flac",
        "sample_rate": 16000,
        "restored_rate": 8000,
        "restored_samples": 5200,
        "channels": 1,
        "level_db": pytest.approx(-13.5, abs=0.1),
        "restored_level_db": pytest.approx(-19.5, abs=0.1),
        "clipped_rate": 0.0,
        "bandwidth_hz": pytest.approx(300, abs=150),
        "restored_bandwidth_hz": pytest.approx(300, abs=150),
        "kept_original": [],
        "scores": {},
    }
    assert list(rows(output)) == sorted(rows(output))
    assert "RTF" in capsys.readouterr().out
    assert cli("job", "verify", output) == 0
    assert cli("job", "status", output) == 0


def test_a_second_run_does_nothing_twice_and_other_options_are_refused(
    cli, tones, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "out"
    cli("restore", tones, "-o", output)
    before, files = journal(output), tree(output)
    assert cli("restore", tones, "-o", output, "--workers", "1") == 0
    assert (journal(output), tree(output)) == (before, files)
    assert cli("restore", tones, "-o", output, "--loudness", "-23LUFS") == 5
    assert "options.loudness: 'keep' there, '-23LUFS' now" in capsys.readouterr().err
    assert cli("restore", tones, "-o", output, "--loudness", "-23LUFS", "--overwrite") == 0
    monkeypatch.setenv("SPEECHADAPT_LOADER", fake_recogniser.HOOK)
    assert cli("transcribe", tones, "-o", output, "--no-vad") == 5
    assert "job: 'restore' there, 'transcribe' now" in capsys.readouterr().err


def test_shards_and_processes_write_what_one_run_writes(cli, tones, tmp_path):
    cli("restore", tones, "-o", tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    assert len(expected) == 8
    parts = tmp_path / "parts"
    assert cli("restore", tones, "-o", parts, "--shard", "2/2") == 0
    assert not (parts / "restored.jsonl").exists()
    assert cli("restore", tones, "-o", parts, "--shard", "1/2") == 0
    assert tree(parts) == expected
    assert cli("job", "merge", parts) == 0
    assert cli("restore", tones, "-o", tmp_path / "two", "--workers", "2") == 0
    assert tree(tmp_path / "two") == expected


def test_an_item_that_fails_costs_no_other_and_is_retried_when_asked(
    cli, tones, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    (tones / "broken.wav").write_text("no sound here")
    monkeypatch.setenv("FAKE_FAIL_AT_HZ", "210")
    assert cli("restore", tones, "-o", output) == 3
    found = {name: (row["status"], row["reason"]) for name, row in rows(output).items()}
    assert found.pop("clip01.wav") == ("failed", "MODEL")
    assert found.pop("broken.wav") == ("failed", "UNREADABLE")
    assert set(found.values()) == {("ok", None)}
    monkeypatch.delenv("FAKE_FAIL_AT_HZ")
    write_tone(tones / "broken.wav", 400, 0.5)
    assert cli("job", "retry", output) == 0
    assert (output / "broken.flac").is_file()
    assert max(line["attempts"] for line in journal(output)) == 2
    assert cli("restore", tones, "-o", tmp_path / "good") == 0
    assert tree(output) == tree(tmp_path / "good")


def test_outputs_never_land_beside_their_inputs(cli, tones, capsys):
    assert cli("restore", tones, "-o", tones) == 2
    assert "beside it" in capsys.readouterr().err
    assert not list(tones.rglob("*.flac"))


def test_damaged_and_changed_outputs_are_found(cli, tones, tmp_path, capsys):
    output = tmp_path / "out"
    cli("restore", tones, "-o", output)
    (output / "clip01.flac").write_bytes((output / "clip01.flac").read_bytes()[:3000])
    write_tone(tmp_path / "other.wav", 300, 0.2)
    samples, rate = soundfile.read(tmp_path / "other.wav")
    soundfile.write(output / "clip02.flac", samples, rate)
    (output / "clip04.flac").unlink()
    assert cli("job", "verify", output) == 3
    printed = capsys.readouterr().out
    assert "clip01.wav: 'clip01.flac'" in printed
    assert "'clip02.flac' holds 3200 samples" in printed
    assert "'clip04.flac' cannot be read" in printed


def test_what_is_missing_for_a_gate_is_an_error_at_the_start(cli, tones, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ("restore", tones, "-o", output, "--keep-original-if")
    assert cli(*arguments, "speaker<0.75", "--speaker-model", "nowhere") == 2
    assert "speaker" in capsys.readouterr().err
    assert cli(*arguments, "speaker=0.75") == 2
    assert "as 'speaker<0.75', got 'speaker=0.75'" in capsys.readouterr().err
    assert not (output / ".speechadapt" / "job.json").exists()


def test_a_model_that_is_not_bundled_is_said_so(tones, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SPEECHADAPT_LOADER", raising=False)
    monkeypatch.setattr("speechadapt.models.restorer_folder.bundled_models", dict)
    assert call("restore", tones, "-o", tmp_path / "out") == 2
    assert "it is not trained yet" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_tiny_restorer(tmp_path_factory.mktemp("tiny") / "restorer")


def write_odd_inputs(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)

    def write(name: str, samples: np.ndarray, rate: int) -> None:
        soundfile.write(folder / f"{name}.wav", samples, rate, subtype="FLOAT")

    write("stereo48k", 0.1 * random.standard_normal((20001, 2)), 48000)
    write("mono8k", 0.1 * random.standard_normal(3999), 8000)
    write("brief", 0.1 * random.standard_normal(800), 16000)
    write("too_brief", 0.1 * random.standard_normal(200), 16000)
    write("silence", np.zeros(8000), 16000)
    write("constant", np.full(8000, 0.5), 16000)
    write("square", np.where(np.arange(8000) % 80 < 40, 1.0, -1.0), 16000)
    write("nan", np.where(np.arange(8000) == 4000, np.nan, 0.1), 16000)


def test_odd_recordings_have_a_correct_record_each(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("SPEECHADAPT_LOADER", raising=False)
    write_odd_inputs(tmp_path / "in")
    assert call("restore", tmp_path / "in", "-o", tmp_path / "out", "--model", tiny) == 3
    found = rows(tmp_path / "out")
    assert {name: row["reason"] for name, row in found.items() if row["status"] == "failed"} == {
        "nan.wav": "NONFINITE",
        "too_brief.wav": "TOO_SHORT",
    }
    shapes = {"stereo48k": (48000, 2, 20001), "mono8k": (8000, 1, 3999), "brief": (16000, 1, 800)}
    for name, (rate, channels, samples) in shapes.items():
        info = soundfile.info(tmp_path / f"out/{name}.flac")
        assert (info.samplerate, info.channels, info.frames) == (rate, channels, samples)
        row = found[f"{name}.wav"]
        assert (row["status"], row["channels"], row["restored_samples"]) == (
            "ok",
            channels,
            samples,
        )
    for name in ("silence", "constant"):
        assert found[f"{name}.wav"]["flags"] == ["no_signal"]
        assert found[f"{name}.wav"]["restored_level_db"] is None
        assert not soundfile.read(tmp_path / f"out/{name}.flac")[0].any()
    square, _ = soundfile.read(tmp_path / "out/square.flac")
    assert 0.0 < float(np.abs(square).max()) < 1.0
    assert found["square.wav"]["clipped_rate"] == 1.0
