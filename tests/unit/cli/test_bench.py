from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from speechadapt.cli import bench
from speechadapt.core.errors import ConfigError

RUNNER = CliRunner()
SMALL = ["decoders", "--random", "tiny", "--seconds", "1", "--num-candidates", "1", "--rounds", "1"]


def test_the_tables_are_printed_and_written(tmp_path: Path) -> None:
    words = [*SMALL, "--num-steps", "2", "--parts", "candidates,reuse", "-o", str(tmp_path / "out")]
    result = RUNNER.invoke(bench.app, words)
    assert result.exit_code == 0, result.output
    assert result.output == (tmp_path / "out/decoders.md").read_text()
    report = json.loads((tmp_path / "out/decoders.json").read_text())
    assert set(report) >= {"candidates", "reuse", "parameters", "environment"}
    assert not (tmp_path / "out/decoders.png").exists()
    assert "autoregressive, greedy" in result.output


def test_a_wrong_flag_is_an_error_of_the_package() -> None:
    result = RUNNER.invoke(bench.app, [*SMALL, "--parts", "lenght"])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == "--parts knows no 'lenght'. Did you mean length?"
    with pytest.raises(ConfigError):
        raise result.exception
