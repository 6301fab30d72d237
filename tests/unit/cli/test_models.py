"""`speechadapt models`: listing, cards, and fetching that fails with a reason."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import constants

from speechadapt.cli import main as command_line
from speechadapt.cli import models
from speechadapt.models.card import ModelCard, Score, write_card
from tests import command

run = partial(command.call, "models")


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a package folder with one bundled model, and an empty hub cache."""
    folder = tmp_path / "pretrained" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2-bert"}))
    score = Score("digits test", "wer", 0.07, 0.05, 0.09)
    write_card(folder, ModelCard("tiny", "Digits.", "w2v_bert", 4_000_000, "MIT", scores=(score,)))
    monkeypatch.setattr(models, "bundled_models", lambda: {"tiny": folder})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return folder


def put_in_cache(cache: Path, repository: str, kind: str) -> None:
    """Lay out one model as the hub's cache does."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
    (snapshot / "README.md").write_text(f"# card of {repository}\n")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc123")


@pytest.mark.usefixtures("bundled")
def test_listing_names_each_bundled_model_and_its_first_score(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run() == 0
    line = capsys.readouterr().out.strip()
    assert line == ("tiny  [bundled]  Digits. 4.0 M parameters; digits test WER 7.0 % (5.0 to 9.0)")


@pytest.mark.usefixtures("bundled")
def test_known_models_of_the_hub_cache_are_listed_and_others_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_cache(tmp_path / "cache", "someone/speech", "whisper")
    put_in_cache(tmp_path / "cache", "someone/text", "bert")
    assert run() == 0
    printed = capsys.readouterr().out
    assert "someone/speech  [hub cache]  whisper" in printed
    assert "someone/text" not in printed
    assert run("show", "someone/speech") == 0
    assert "# card of someone/speech" in capsys.readouterr().out


@pytest.mark.usefixtures("bundled")
def test_show_prints_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "tiny") == 0
    assert capsys.readouterr().out.startswith("# tiny\n")


def test_show_takes_a_folder(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", str(bundled)) == 0
    assert capsys.readouterr().out.startswith("# tiny\n")


@pytest.mark.usefixtures("bundled")
def test_an_unknown_name_gets_a_near_miss(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "tinny") == command_line.EXIT_USAGE
    assert "no model at hand is named 'tinny'. Did you mean tiny?" in capsys.readouterr().err


@pytest.mark.usefixtures("bundled")
def test_fetching_offline_says_so_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert run("prefetch", "someone/nothing") == 1
    assert "could not fetch 'someone/nothing' at 'main'" in capsys.readouterr().err
