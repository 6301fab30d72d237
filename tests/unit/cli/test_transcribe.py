from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from speechadapt.jobs.options import TranscribeOptions
from tests import command

call = partial(command.call, "transcribe")


@pytest.fixture
def seen(monkeypatch) -> list[TranscribeOptions]:
    """Catch the options instead of running the job."""
    found: list[TranscribeOptions] = []

    def run(options: TranscribeOptions, *more: Any) -> int:
        found.append(options)
        return 3

    monkeypatch.setattr("speechadapt.jobs.transcribe.transcribe", run)
    return found


def test_the_exit_code_is_the_jobs(seen):
    assert call("a.wav", "b", "-o", "out") == 3
    assert seen[0] == TranscribeOptions(inputs=("a.wav", "b"), output="out")


def test_flags_have_dashes_and_whispers_spellings_mean_the_same(seen):
    call("a", "--output", "o", "--formats", "srt", "--beam-size", "4", "--word-timestamps")
    call(
        "a", "--output_dir", "o", "--output_format", "srt", "--beam_size", "4", "--word_timestamps"
    )
    assert seen[0] == seen[1]
    assert seen[0].word_timestamps
    assert seen[0].beam_size == 4


def test_switches_are_real_switches_and_lists_repeat(seen):
    call("a", "-o", "o", "--no-vad", "--include", "*.wav", "--include", "*.flac", "-O", "lm=x")
    assert not seen[0].vad
    assert seen[0].include == ("*.wav", "*.flac")
    assert seen[0].option == ("lm=x",)


def test_the_help_is_free_of_second_spellings(capsys):
    assert call("--help") == 0
    printed = capsys.readouterr().out
    assert "--beam-size" in printed
    assert "--beam_size" not in printed
