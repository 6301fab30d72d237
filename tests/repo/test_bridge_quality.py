"""`tools/bridge_quality.py`: the ratio of errors, its interval, and a whole run on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import bridge_quality
import numpy as np
import pytest

from speechadapt.config.resolve import resolve
from speechadapt.training.loop import train
from tests import synthetic
from tests.tiny_tasks import base_folder, whisper_folder, write_recipe


def test_the_ratio_is_that_of_all_errors_together() -> None:
    errors = {"a": np.array([3, 1]), "b": np.array([2, 4])}
    found = bridge_quality.ratio(errors)
    assert found["edits"] == {"bridge": 5, "own encoder": 5}
    assert found["ratio"] == pytest.approx(1.0)
    # the extremes are either speaker alone
    assert found["low"] == pytest.approx(0.5)
    assert found["high"] == pytest.approx(3.0)


def test_without_errors_of_the_other_side_there_is_no_ratio() -> None:
    found = bridge_quality.ratio({"a": np.array([3, 0])})
    assert found["ratio"] is None
    assert found["edits"] == {"bridge": 3, "own encoder": 0}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the arguments of a small run: a tiny bridge, hardly trained, on made tones."""
    folder = tmp_path_factory.mktemp("bridge")
    run = resolve(write_recipe(folder, "bridge", folder / "pack"), [folder])
    train(run.module.build(run.config), run.config.trainer, folder / "run")
    pack = synthetic.write_pack(folder / "named", ("fsdd", "wake"))
    given = ["--model", str(base_folder(folder)), "--against", str(whisper_folder(folder))]
    given += ["--adapter", str(folder / "run/last"), "--data", str(pack)]
    given += ["--option", "language=en", "--option", "temperature=[0.0]"]
    return [*given, "--sets", "fsdd/dev", "wake/dev"]


def test_a_whole_run_reads_the_same_clips_twice(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bridge.json"
    assert bridge_quality.main([*words, "--output", str(output)]) in (0, 1)
    found = json.loads(output.read_text())
    assert str(tmp_path) not in output.read_text()
    assert found["command"].startswith("python tools/bridge_quality.py --model")
    details = found["details"]
    assert [one["set"] for one in details["sets"]] == ["fsdd/dev", "wake/dev"]
    for side in bridge_quality.SIDES:
        wrong = sum(one[side]["wer"] * one[side]["words"]["reference"] for one in details["sets"])
        assert details["together"]["edits"][side] == pytest.approx(wrong)
    if details["together"]["edits"]["own encoder"]:
        (figure,) = found["figures"]
        assert figure["value"] == pytest.approx(details["together"]["ratio"])
        assert "a bridge into mini-whisper's frozen decoder" in capsys.readouterr().out


def test_a_wrong_set_names_a_near_one(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bridge_quality.main([*words[:-1], "wak/dev"]) == 2
    assert "Did you mean wake/dev" in capsys.readouterr().err
