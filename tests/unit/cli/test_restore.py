from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from speechadapt.jobs.restore_options import RestoreOptions
from tests import command

call = partial(command.call, "restore")


@pytest.fixture
def seen(monkeypatch) -> list[RestoreOptions]:
    """Catch the options instead of running the job."""
    found: list[RestoreOptions] = []

    def run(options: RestoreOptions, *more: Any) -> int:
        found.append(options)
        return 3

    monkeypatch.setattr("speechadapt.jobs.restore.restore", run)
    return found


def test_the_exit_code_is_the_jobs_and_conditions_repeat(seen):
    gate = ("--keep-original-if", "speaker<0.75", "--keep-original-if", "dnsmos<-0.1")
    assert call("a.wav", "b", "-o", "out", "-f", "wav", "--loudness", "-23LUFS", *gate) == 3
    assert seen[0] == RestoreOptions(
        inputs=("a.wav", "b"),
        output="out",
        format="wav",
        loudness="-23LUFS",
        keep_original_if=("speaker<0.75", "dnsmos<-0.1"),
    )


def test_the_help_has_the_jobs_own_flags_first(capsys):
    assert call("--help") == 0
    printed = capsys.readouterr().out
    assert printed.index("--format") < printed.index("--loudness") < printed.index("--workers")
