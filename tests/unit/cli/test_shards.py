from __future__ import annotations

import json

import pytest

from speechadapt.cli.main import main
from tests.e2e.fake_recogniser import HOOK, write_tone


@pytest.fixture
def cli(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_LOADER", HOOK)

    def call(*words) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["shards", *map(str, words)])
        return int(ended.value.code or 0)

    return call


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
