from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from speechadapt.cli.standard_input import standard_input
from speechadapt.core.errors import ConfigError
from speechadapt.jobs.options import TranscribeOptions
from tests.command import call
from tests.e2e.fake_recogniser import HOOK, write_tone


class Piped:
    """Stands in for standard input."""

    def __init__(self, data: bytes, terminal: bool = False) -> None:
        self.buffer = io.BytesIO(data)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def tone(tmp_path: Path) -> bytes:
    write_tone(tmp_path / "tone.wav", 210, 0.65)
    return (tmp_path / "tone.wav").read_bytes()


def run(monkeypatch: pytest.MonkeyPatch, data: bytes, *arguments: str | Path) -> int:
    monkeypatch.setenv("SPEECHADAPT_LOADER", HOOK)
    monkeypatch.setattr("sys.stdin", Piped(data))
    return call("transcribe", *arguments)


def journal(output: Path) -> list[str]:
    files = (output / ".speechadapt" / "journal").glob("*.jsonl")
    return [line for file in sorted(files) for line in file.read_text().splitlines()]


def test_a_piped_recording_is_transcribed_as_stdin_once(
    monkeypatch: pytest.MonkeyPatch, tone: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert run(monkeypatch, tone, "-", "-o", output, "--no-vad") == 0
    assert (output / "stdin.txt").read_text() == "p210 l65\n"
    row = json.loads((output / "transcripts.jsonl").read_text())
    assert (row["audio_filepath"], row["status"]) == ("stdin", "ok")
    before = journal(output)
    assert run(monkeypatch, tone, "-", "-o", output, "--no-vad") == 0
    assert journal(output) == before
    write_tone(tmp_path / "other.wav", 330, 0.5)
    other = (tmp_path / "other.wav").read_bytes()
    assert run(monkeypatch, other, "-", "-o", output, "--no-vad") == 0
    assert (output / "stdin.txt").read_text() == "p330 l50\n"


def test_other_inputs_keep_their_names_beside_it(
    monkeypatch: pytest.MonkeyPatch, tone: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    source = tmp_path / "in" / "deep" / "clip.wav"
    source.parent.mkdir(parents=True)
    source.write_bytes(tone)
    assert run(monkeypatch, tone, tmp_path / "in", "-", "-o", output, "--no-vad") == 0
    assert (output / "deep" / "clip.txt").read_text() == (output / "stdin.txt").read_text()


def test_nothing_piped_in_is_an_empty_recording(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(monkeypatch, b"", "-", "-o", tmp_path / "out") == 3
    row = json.loads((tmp_path / "out" / "transcripts.jsonl").read_text())
    assert (row["status"], row["reason"]) == ("failed", "EMPTY")


def test_a_dry_run_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tone: bytes, tmp_path: Path
) -> None:
    assert run(monkeypatch, tone, "-", "-o", tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists()


def test_a_terminal_and_a_part_of_a_job_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", Piped(b"", terminal=True))
    options = TranscribeOptions(inputs=("-",), output=str(tmp_path))
    with pytest.raises(ConfigError, match=r"terminal here\. Pipe one in"), standard_input(options):
        pass
    part = TranscribeOptions(inputs=("-",), output=str(tmp_path), shard="1/2")
    with pytest.raises(ConfigError, match="given with --shard 1/2"), standard_input(part):
        pass
    assert not list(tmp_path.iterdir())


def test_without_the_mark_standard_input_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    options = TranscribeOptions(inputs=("a.wav",), output="out")
    with standard_input(options) as told:
        assert told is options


def test_with_the_state_behind_a_url_a_recording_has_no_place_to_stay(
    monkeypatch: pytest.MonkeyPatch, tone: bytes, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", Piped(tone))
    url = "memory://stdin"
    options = TranscribeOptions(inputs=("-",), output=url)
    with pytest.raises(ConfigError, match=r"lie in 'memory://stdin'\. Give --job-folder"):
        standard_input(options).__enter__()
    kept = TranscribeOptions(inputs=("-",), output=url, job_folder=str(tmp_path / "state"))
    with standard_input(kept):
        assert (tmp_path / "state/.speechadapt/stdin/stdin").read_bytes() == tone
