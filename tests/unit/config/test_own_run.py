from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from speechadapt.config import own_run
from speechadapt.config.own_options import Request, read_options
from speechadapt.config.own_run import (
    FINDINGS_FILE,
    MANIFEST_FILE,
    Prepared,
    check_output,
    is_time_up,
    merged,
    prepare,
)
from speechadapt.core.errors import ConfigError, DataError, FingerprintError
from speechadapt.training.adapt.budget import Pace
from tests.own_data import tone, write, write_folder
from tests.tiny_tasks import base_folder

OPTIONS = ("trainer.steps=4", "batch.batch_s=4", "split.speakers=folder")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("own") / "data")
    write(folder / "voice0/mute.wav", 0 * tone())
    (folder / "voice0/mute.txt").write_text("one")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_folder(tmp_path_factory.mktemp("bases"))


def make(data: Path, base: Path, output: Path, *options: str, **more: object) -> Prepared:
    request = Request((str(data),), output, str(base), options=(*OPTIONS, *options))
    request = replace(request, **more)  # type: ignore[arg-type]
    return prepare(request, read_options(request), request.folder)


def test_data_becomes_a_manifest_and_a_run(data: Path, base: Path, tmp_path: Path) -> None:
    prepared = make(data, base, tmp_path / "out", seed=7)
    assert (len(prepared.checked.rows), prepared.checked.total) == (20, 21)
    folder = tmp_path / "out.run"
    rows = [json.loads(line) for line in (folder / MANIFEST_FILE).read_text().splitlines()]
    assert len(rows) == 20
    assert {row["split"] for row in rows} == {"train", "dev", "test"}
    (finding,) = map(json.loads, (folder / FINDINGS_FILE).read_text().splitlines())
    assert (finding["id"], finding["reason"]) == ("voice0/mute.wav", "silent")
    config = prepared.run.config
    assert config.trainer.seed == 7
    assert (config.trainer.steps, config.trainer.evaluate_every) == (4, 1)
    assert (config.method, config.alphabet, config.keep_head) == ("lora", "texts", False)
    assert prepared.run.folder == folder
    assert "the base has no letters of its own: a new head is trained" in prepared.lines
    assert prepared.parts.by == "speaker"
    assert not any("other speakers" in limit for limit in prepared.limits)


def test_the_same_data_goes_on_and_other_data_is_refused(
    data: Path, base: Path, tmp_path: Path
) -> None:
    make(data, base, tmp_path / "out")
    (tmp_path / "out.run/config.yaml").write_text("trainer: {}\n")
    first = (tmp_path / "out.run" / MANIFEST_FILE).read_bytes()
    make(data, base, tmp_path / "out")
    with pytest.raises(FingerprintError, match="run on other data: 20 rows are new, gone or chan"):
        make(data, base, tmp_path / "out", "split.speakers=given")
    assert (tmp_path / "out.run" / MANIFEST_FILE).read_bytes() == first


def test_a_budget_sizes_the_adapter(data: Path, base: Path, tmp_path: Path) -> None:
    small = make(data, base, tmp_path / "a", budget=("2k",)).run.config.adapter["rank"]
    large = make(data, base, tmp_path / "b", budget=("9k",)).run.config.adapter["rank"]
    assert large > small
    with pytest.raises(ConfigError, match="a budget of 20 parameters was given"):
        make(data, base, tmp_path / "c", budget=("20",))


def test_a_budget_of_minutes_sets_the_steps_once(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_run, "pace_of", lambda config: Pace(step_s=0.5, evaluation_s=5.0))
    options = tuple(word for word in OPTIONS if "steps" not in word)
    request = Request((str(data),), tmp_path / "out", str(base), budget=("1min",), options=options)
    first = prepare(request, read_options(request), request.folder).run
    # 54 of the 60 seconds are planned: two scores and 44 s of steps
    assert (first.trainer.steps, first.trainer.evaluate_every) == (88, 44)
    assert first.trainer.sitting_s == 60.0
    assert not is_time_up(request, read_options(request))
    stored = {"trainer": {"steps": 9, "warmup_steps": 1, "evaluate_every": 3}}
    (request.folder / "config.yaml").write_text(yaml.safe_dump(stored))
    again = prepare(request, read_options(request), request.folder).run
    assert (again.trainer.steps, again.trainer.evaluate_every) == (9, 3)
    state = request.folder / "checkpoints/step-00000003/state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"seconds": 40.0}))
    later = prepare(request, read_options(request), request.folder).run
    assert later.trainer.sitting_s == 20.0
    state.write_text(json.dumps({"seconds": 60.5}))
    assert is_time_up(request, read_options(request))
    hopeless = replace(request, output=tmp_path / "no", budget=("4s",))
    with pytest.raises(ConfigError, match=r"a step takes 0\.5 s and a score 5\.0 s\. Raise"):
        prepare(hopeless, read_options(hopeless), hopeless.folder)


def test_too_little_data_is_refused_with_what_was_found(base: Path, tmp_path: Path) -> None:
    write(tmp_path / "data/a.wav", tone())
    with pytest.raises(DataError) as caught:
        make(tmp_path / "data", base, tmp_path / "out")
    assert "1 without a transcript: a.wav" in str(caught.value)
    assert "0 usable rows were found" in str(caught.value)


def test_the_output_must_be_this_commands_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file; the adapter is a folder"):
        check_output(Request(("x",), tmp_path / "file"))
    (tmp_path / "full").mkdir()
    check_output(Request(("x",), tmp_path / "full"))
    (tmp_path / "full/thesis.md").write_text("x")
    with pytest.raises(ConfigError, match=r"holds something already, and 'full.run'"):
        check_output(Request(("x",), tmp_path / "full"))
    (tmp_path / "full.run").mkdir()
    (tmp_path / "full.run/config.yaml").write_text("{}")
    check_output(Request(("x",), tmp_path / "full"))


def test_a_tree_is_laid_over_another_key_by_key() -> None:
    below = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
    assert merged(below, {"a": {"b": 3}, "d": [4]}) == {"a": {"b": 3, "c": 2}, "d": [4]}
    assert below["a"] == {"b": 1, "c": 2}
