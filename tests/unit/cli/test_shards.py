from __future__ import annotations

import json
import tarfile
from functools import partial

import pytest

from tests.command import call
from tests.e2e.fake_recogniser import HOOK, write_tone


@pytest.fixture
def cli(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_LOADER", HOOK)
    return partial(call, "shards")


def test_a_manifest_is_planned_run_looked_at_and_joined(cli, tmp_path, capsys):
    rows = [{"audio_filepath": f"{n}.wav", "duration": 0.4, "text": "x"} for n in range(3)]
    for row in rows:
        write_tone(tmp_path / row["audio_filepath"], 300, 0.4)
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan, output = tmp_path / "plan", tmp_path / "out"
    assert cli("plan", tmp_path / "m.jsonl", plan, "--items", "2") == 0
    assert "3 rows, 0.00 h in 2 shards" in capsys.readouterr().out
    words = ("--no-vad", "--formats", "txt", "--json-progress")
    assert cli("run", "transcribe", plan, "-o", output, *words) == 0
    capsys.readouterr()
    assert cli("status", plan, "-o", output) == 0
    assert "2 of 2 shards done" in capsys.readouterr().out
    assert cli("verify", plan, "-o", output) == 0
    assert "all shards are there" in capsys.readouterr().out
    assert cli("merge", plan, "-o", output) == 0
    assert json.loads(capsys.readouterr().out)["complete"]
    (output / "shards" / "000001.tar").unlink()
    assert cli("verify", plan, "-o", output) == 3
    assert "000001.tar' is missing" in capsys.readouterr().out


def test_wrong_words_are_named(cli, tmp_path, capsys):
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav"}\n')
    assert cli("plan", tmp_path / "m.jsonl", tmp_path / "plan") == 0
    assert cli("run", "transcript", tmp_path / "plan", "-o", tmp_path / "out") == 1
    assert "knows no job 'transcript'. Did you mean transcribe?" in capsys.readouterr().err
    assert cli("status", tmp_path / "nowhere", "-o", tmp_path / "out") == 1
    assert "cannot be read" in capsys.readouterr().err


def test_recordings_in_tars_are_laid_out(tmp_path, capsys):
    write_tone(tmp_path / "one.wav", 300, 0.1)
    with tarfile.open(tmp_path / "audio_0.tar", "w") as tar:
        tar.add(tmp_path / "one.wav", "one.wav")
    rows = [{"audio_filepath": f"one{part}.wav", "shard_id": 0} for part in ("", "-sub1")]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "tarred_audio_manifest.json").write_text(lines)
    assert call("shards", "plan", tmp_path, tmp_path / "plan") == 0
    assert "2 rows, 0.00 h in 1 shards" in capsys.readouterr().out
    assert call("shards", "unpack", tmp_path, tmp_path / "out") == 0
    assert f"2 rows in {tmp_path / 'out' / 'manifest.jsonl'}" in capsys.readouterr().out
    assert call("shards", "unpack", tmp_path / "out", tmp_path / "again") == 1
    assert "is no packed corpus: a Shar folder holds" in capsys.readouterr().err
