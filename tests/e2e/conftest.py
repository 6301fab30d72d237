"""Fixtures of jobs: the command line with a quick stand-in for the model, tones, whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import call
from tests.e2e import fake_recogniser
from tests.e2e.fake_recogniser import write_tones
from tests.e2e.jobs import CLIPS, Cli, tree


@pytest.fixture
def hook() -> str:
    """Return what loads the stand-in; the tests of another job override it."""
    return fake_recogniser.HOOK


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, hook: str) -> Cli:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setenv("SPEECHADAPT_LOADER", hook)
    return call


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """Return a small folder of tones, for a test to spoil."""
    write_tones(tmp_path / "in", 7)
    return tmp_path / "in"


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of tones that jobs are killed over."""
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, CLIPS)
    return folder


@pytest.fixture(scope="session")
def whole(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, bytes]]:
    """Transcribe the tones without trouble, once per environment, and return what that writes."""
    written: dict[tuple[str, ...], dict[str, bytes]] = {}

    def run(**environment: str) -> dict[str, bytes]:
        key = tuple(f"{name}={value}" for name, value in sorted(environment.items()))
        if key not in written:
            output = tmp_path_factory.mktemp("whole")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SPEECHADAPT_LOADER", fake_recogniser.HOOK)
                for name, value in environment.items():
                    patch.setenv(name, value)
                assert call("transcribe", source, "-o", output, "--no-vad", "--batch-size", 2) == 0
            written[key] = tree(output)
            assert len(written[key]) == 2 * CLIPS + 1
        return written[key]

    return run
