"""The verb `plan`."""

from __future__ import annotations

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
