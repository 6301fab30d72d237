from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from speechadapt.config.resolve import Run, resolve
from speechadapt.config.run_folder import (
    check_run_folder,
    commit,
    open_run_folder,
    settings_diff,
    versions,
)
from speechadapt.core.errors import FingerprintError, JobError
from speechadapt.core.files import hash_file
from tests.tiny_tasks import write_recipe


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Words that run a tiny CTC recipe into a folder of the test."""
    folder = f"run.folder={tmp_path / 'run'}"
    return [*write_recipe(tmp_path, "ctc", tmp_path / "pack"), folder]


@pytest.fixture
def run(words: list[str], tmp_path: Path) -> Run:
    """Return that run."""
    return resolve(words, [tmp_path])


def test_settings_versions_hashes_and_ids_are_written(run: Run, tmp_path: Path) -> None:
    assert not check_run_folder(run)
    open_run_folder(run, ("a-1", "b-2"), processes=2)
    stored = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert stored["task"] == "ctc"
    assert stored["trainer"]["steps"] == 2
    assert stored["data"]["train"] == ["tones", "chords"]
    record = json.loads((run.folder / "run.json").read_text())
    manifest = tmp_path / "pack/manifests/tones.jsonl"
    assert record["sources"]["manifests/tones.jsonl"] == hash_file(manifest)
    assert len(record["data_hash"]) == 64
    (sitting,) = record["sittings"]
    assert sitting["words"] == list(run.words)
    assert sitting["processes"] == 2
    assert {"python", "torch", "transformers", "speechadapt"} <= set(sitting["versions"])
    assert (run.folder / "training_ids.txt").read_text() == "a-1\nb-2\n"


def test_the_same_run_goes_on_and_adds_a_sitting(
    run: Run, words: list[str], tmp_path: Path
) -> None:
    open_run_folder(run, ())
    later = resolve([*words, "trainer.sitting_s=60", "trainer.threads=1"], [tmp_path])
    assert check_run_folder(later)
    open_run_folder(later, ())
    record = json.loads((run.folder / "run.json").read_text())
    assert [len(sitting["words"]) for sitting in record["sittings"]] == [len(words), len(words) + 2]


def test_a_run_with_other_settings_is_refused_with_what_differs(
    run: Run, words: list[str], tmp_path: Path
) -> None:
    open_run_folder(run, ())
    other = resolve([*words, "trainer.seed=9", "batch.weights={tones: 1}"], [tmp_path])
    with pytest.raises(FingerprintError) as caught:
        check_run_folder(other)
    lines = str(caught.value).splitlines()
    assert "  trainer.seed: 0 -> 9" in lines
    assert "  batch.weights.tones: absent -> 1.0" in lines
    assert len(lines) == 4


def test_a_run_on_changed_data_is_refused(run: Run, tmp_path: Path) -> None:
    open_run_folder(run, ())
    with (tmp_path / "pack/manifests/chords.jsonl").open("a") as manifest:
        manifest.write("\n")
    with pytest.raises(FingerprintError, match=r"manifests/chords\.jsonl: \w{12} -> \w{12}"):
        check_run_folder(run)


def test_data_that_moved_but_is_the_same_is_accepted(
    run: Run, words: list[str], tmp_path: Path
) -> None:
    open_run_folder(run, ())
    (tmp_path / "pack").rename(tmp_path / "moved")
    moved = [word.replace("/pack", "/moved") for word in words]
    assert check_run_folder(resolve(moved, [tmp_path]))


def test_checkpoints_of_nobody_knows_what_are_refused(run: Run) -> None:
    (run.folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(JobError, match=r"holds checkpoints but no config\.yaml"):
        check_run_folder(run)


def test_lists_and_tuples_of_equal_values_do_not_differ() -> None:
    assert settings_diff({"a": [1, 2], "b": {"c": ()}}, {"a": (1, 2), "b": {"c": []}}) == []
    assert settings_diff({"a": 1}, {"b": 1}) == ["a: 1 -> absent", "b: absent -> 1"]
    assert settings_diff({"data": {"root": "x"}}, {"data": {"root": "y"}}) == []


def test_versions_and_commit_say_what_ran() -> None:
    assert versions()["python"].startswith("3.")
    assert commit() == "" or len(commit().rstrip("+")) == 40


def test_a_setting_that_came_later_leaves_older_runs_as_they_were(
    run: Run, words: list[str], tmp_path: Path
) -> None:
    open_run_folder(run, ())
    path = run.folder / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    del stored["data"]["edge_s"], stored["trainer"]["average"]
    path.write_text(yaml.safe_dump(stored))
    assert check_run_folder(run)
    other = resolve([*words, "trainer.average=0.5"], [tmp_path])
    with pytest.raises(FingerprintError, match=r"trainer.average: 0.0 -> 0.5"):
        check_run_folder(other)
