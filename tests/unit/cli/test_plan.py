"""The verb `plan`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from speechadapt.cli.plan import app
from speechadapt.core.errors import ConfigError


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


FIXED = ("--decode-rtf", "0.001", "--encode-rtf", "0.001")


def test_the_sources_own_case_is_printed() -> None:
    text = run("restore", "--hours", "1e6", "--devices", "100", "--rtf", "0.0078", *FIXED)
    assert "wall time    78.0 h (3.25 days)" in text
    assert "measured" not in text.replace("Assumed", "")


def test_other_figures_may_be_set_and_measured() -> None:
    text = run("restore", "--hours", "10", "--rtf", "0.5", "--set", "output_kbps=512")
    assert "at 512 kbit/s" in text
    assert "Decoding and encoding measured here" in text


def test_wrong_words_are_named() -> None:
    with pytest.raises(ConfigError, match="give --model FOLDER"):
        run("restore", "--hours", "10")
    with pytest.raises(ConfigError, match="--rtf must be a number, got 'fast'"):
        run("restore", "--hours", "10", "--rtf", "fast", *FIXED)
    with pytest.raises(ConfigError, match="Did you mean cores"):
        run("restore", "--hours", "10", "--rtf", "1", *FIXED, "--set", "core=3")
    with pytest.raises(ConfigError, match="write KEY=VALUE"):
        run("restore", "--hours", "10", "--rtf", "1", *FIXED, "--set", "cores")


def test_a_transcription_is_planned_from_a_job_that_was_run(tmp_path) -> None:
    speed = {
        "audio_s": 1000.0,
        "decode_s": 2.0,
        "model": {"rtf": 0.02},
        "environment": {"device": "cpu", "dtype": "float32", "threads": 2, "batch": "16"},
    }
    path = tmp_path / "done" / ".speechadapt" / "summary.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"speed": speed}))
    text = run("transcribe", "--hours", "1000", "--devices", "10", "--from", str(path.parents[1]))
    assert "wall time    2.0 h" in text
    assert "decode and encode  0.000500" in text
    assert "last run of 'done': cpu, float32, 2 threads" in text
    with pytest.raises(ConfigError, match="holds no job whose last run did any work"):
        run("transcribe", "--hours", "1000", "--from", str(tmp_path))
    with pytest.raises(ConfigError, match="give --from OUT"):
        run("transcribe", "--hours", "1000")


def test_failures_and_slow_devices_are_simulated_where_they_are_asked_for() -> None:
    words = ("--set", "mtbf_h=100", "--set", "slow_share=0.1", "--set", "slow_factor=2")
    text = run("restore", "--hours", "1e5", "--devices", "10", "--rtf", "0.01", *FIXED, *words)
    assert "with failures of a device every 100 h of work, 10% of the devices 2 times" in text
    assert "in half of 20 simulated runs" in text
    with pytest.raises(ConfigError, match="slow_share must be between 0 and 1"):
        run("restore", "--hours", "1", "--rtf", "1", *FIXED, "--set", "slow_share=2")
