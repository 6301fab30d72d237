"""The verb `degrade`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from speechadapt.cli import degrade
from speechadapt.core.errors import CatalogError, ConfigError, DataError


def run(*words: str | Path) -> str:
    app = typer.Typer()
    app.command()(degrade.command)
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, rate in (("a.wav", 16000), ("sub/b.wav", 24000)):
        path = tmp_path / "clean" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * random.standard_normal(rate // 2), rate)
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise/hum.wav", 0.1 * random.standard_normal(16000), 16000)
    return tmp_path / "clean"


def test_the_same_seed_writes_the_same_bytes_and_says_what_was_done(clean: Path) -> None:
    root = clean.parent
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        text = run(clean, "-o", root / name, "--seed", seed, "--noise", root / "noise")
        assert "2 recordings degraded by 'miipher'" in text
    for name in ("a.flac", "sub/b.flac"):
        first = (root / "one" / name).read_bytes()
        assert first == (root / "two" / name).read_bytes()
        assert first != (root / "three" / name).read_bytes()
    rows = [json.loads(line) for line in (root / "one/degraded.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "sub/b"]
    assert [row["sample_rate"] for row in rows] == [16000, 24000]
    noise = [one for one in rows[0]["applied"] if one["stage"] == "noise"]
    assert noise[0]["noise"] == "hum"
    assert soundfile.info(root / "one/sub/b.flac").frames == 12000


def test_another_recording_changes_nothing(clean: Path) -> None:
    root = clean.parent
    run(clean, "-o", root / "both")
    (clean / "a.wav").unlink()
    run(clean, "-o", root / "one")
    assert (root / "both/sub/b.flac").read_bytes() == (root / "one/sub/b.flac").read_bytes()


def test_wrong_folders_and_presets_are_refused(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clean recordings would be lost"):
        run(clean, "-o", clean)
    with pytest.raises(ConfigError, match="is no folder"):
        run(clean / "a.wav", "-o", tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no recordings"):
        run(tmp_path / "empty", "-o", tmp_path / "x")
    with pytest.raises(CatalogError, match="Did you mean sidon"):
        run(clean, "-o", tmp_path / "x", "--preset", "sidn")
