"""`tools/native_quality.py`: the recovered share, its interval, and a whole run on a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import native_quality
import pytest
import torch
from native_quality import Errors

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.source import fingerprint_folder
from tests import synthetic
from tests.tiny_tasks import whisper_folder


def errors(*rows: tuple[str, int, int, int]) -> list[Errors]:
    """Return items by speaker with their edits: padded, native, native with the adapter."""
    names = native_quality.VARIANTS
    return [Errors(who, dict(zip(names, edits, strict=True))) for who, *edits in rows]


def test_the_share_is_that_of_the_added_errors() -> None:
    found = native_quality.recovered(errors(("a", 1, 5, 2), ("b", 0, 6, 0), ("a", 2, 2, 2)))
    assert found["edits"] == {"full": 3, "native": 13, "adapted": 4}
    assert found["share"] == pytest.approx(9 / 10)
    assert found["clusters"] == 2
    # with two speakers the extremes are either one alone: a gives 3 of 4, b gives 6 of 6
    assert found["low"] == pytest.approx(3 / 4)
    assert found["high"] == pytest.approx(1.0)
    assert found["without_added_errors"] == 0.0


def test_draws_without_added_errors_are_counted_and_have_no_share() -> None:
    found = native_quality.recovered(errors(("a", 0, 4, 1), ("b", 1, 1, 1)))
    assert found["share"] == pytest.approx(3 / 4)
    assert found["low"] == found["high"] == pytest.approx(3 / 4)
    assert found["without_added_errors"] == pytest.approx(1 / 4, abs=0.05)


def test_where_native_length_adds_nothing_there_is_no_share() -> None:
    found = native_quality.recovered(errors(("a", 2, 2, 1), ("b", 3, 1, 0)))
    assert found["share"] is None
    assert native_quality.shown_share(found) == "no errors added"
    sizes = {"adapter": 10, "encoder": 1000, "share": 0.01}
    (figure,) = native_quality.figures_of(found, sizes)
    assert figure["claim"] == "native_parameters"
    assert figure["value"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Whisper."""
    return whisper_folder(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter for it that changes something."""
    encoder = load_encoder(model, padding="native")
    torch.manual_seed(0)
    handle = attach(encoder, "native_length", config={"rank": 2})
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.add_(0.05)
    return store.save(handle, tmp_path_factory.mktemp("saved") / "native")


@pytest.fixture
def words(model: Path, adapter: Path, tmp_path: Path) -> list[str]:
    """Return the arguments of a small run on made tones."""
    pack = synthetic.write_pack(tmp_path / "pack", ("fsdd", "wake"))
    given = ["--model", str(model), "--adapter", str(adapter), "--data", str(pack)]
    return [*given, "--sets", "fsdd/dev", "wake/dev"]


def test_a_whole_run_writes_what_it_prints(
    words: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, output = fingerprint_folder(model), tmp_path / "native_length.json"
    given = [*words, "--seconds", "0.5", "2", "--runs", "2", "--output", str(output)]
    code = native_quality.main([*given, "--option", "language=en", "--option", "temperature=[0.0]"])
    assert code in (0, 1)
    text = output.read_text()
    found = json.loads(text)
    assert str(tmp_path) not in text
    assert found["command"].startswith("python tools/native_quality.py --model")
    details: dict[str, Any] = found["details"]
    assert [one["set"] for one in details["sets"]] == ["fsdd/dev", "wake/dev"]
    first = details["sets"][0]
    assert {first[name]["items"] for name in native_quality.VARIANTS} == {2}
    total = details["recovered"]["edits"]
    for name in native_quality.VARIANTS:
        assert total[name] == sum(one["recovered"]["edits"][name] for one in details["sets"])
    assert details["parameters"]["share"] == pytest.approx(
        details["parameters"]["adapter"] / details["parameters"]["encoder"]
    )
    for timed, seconds in zip(details["encoder_time"], (0.5, 2.0), strict=True):
        assert timed["clip_s"] == seconds
        assert timed["seconds"].keys() == {"full", "native", "adapted", "merged"}
        ends = timed["times_faster"]["native"]
        times = timed["seconds"]
        assert ends["median"] == pytest.approx(times["full"]["median"] / times["native"]["median"])
        assert math.isfinite(ends["low"])
    printed = capsys.readouterr().out
    assert "| fsdd/dev | " in printed
    assert "0.5 s, native length, merged: " in printed
    assert fingerprint_folder(model) == before


def test_another_family_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words[1] = "mini-usm"
    assert native_quality.main(words) == 2
    assert "only Whisper has a padded window" in capsys.readouterr().err


def test_an_option_without_a_value_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert native_quality.main([*words, "--option", "language"]) == 2
    assert "--option takes NAME=VALUE, got 'language'" in capsys.readouterr().err


def test_a_wrong_set_names_a_near_one(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words[words.index("wake/dev")] = "wak/dev"
    assert native_quality.main(words) == 2
    assert "Did you mean wake/dev" in capsys.readouterr().err
