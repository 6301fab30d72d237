"""`speechadapt train`, from the words on the command line to the run folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.command import call
from tests.tiny_tasks import write_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Words that train a tiny CTC model into `run`."""
    recipe = write_recipe(tmp_path, "ctc", tmp_path / "pack")
    return ["train", *recipe, "--config-dir", str(tmp_path), f"run.folder={tmp_path / 'run'}"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert call(*words, "--dry-run") == 0
    plan = capsys.readouterr().out
    for part in ("tiny/ctc", "2, each of 1", "16 items", "s of speech in", "M trained", "run"):
        assert part in plan
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_leaves_models_settings_and_ids_and_can_be_called_again(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words, "trainer.sitting_s=1e-6") == 0
    assert "stopped at step 1 of 2; the same command goes on" in capsys.readouterr().err
    assert call(*words) == 0
    assert "finished after 2 steps" in capsys.readouterr().out
    run = tmp_path / "run"
    for name in ("last/config.json", "last/vocab.json", "best/model.safetensors", "log.jsonl"):
        assert (run / name).is_file(), name
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["dim"] == 16
    ids = (run / "training_ids.txt").read_text().split()
    assert len(ids) == 16 + 2 + 1
    assert all("-train-" in name for name in ids)
    assert len(json.loads((run / "run.json").read_text())["sittings"]) == 2

    assert call(*words, "trainer.seed=3") == 5
    assert "trainer.seed: 0 -> 3" in capsys.readouterr().err
    log = (run / "log.jsonl").read_bytes()
    assert call(*words) == 0
    assert (run / "log.jsonl").read_bytes() == log


def test_all_that_is_wrong_is_said_at_once_before_anything_is_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words, "trainer.stepz=3", "model.dims=4", "data.dev=[tone]") == 2
    message = capsys.readouterr().err
    assert "3 problems with the settings" in message
    for part in ("Did you mean steps", "Did you mean dim", "Did you mean tones"):
        assert part in message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_train_through_torchrun(words: list[str], tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "speechadapt", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("finished after 2 steps") == 1
    (sitting,) = json.loads((tmp_path / "run/run.json").read_text())["sittings"]
    assert sitting["processes"] == 2
    assert (tmp_path / "run/last/model.safetensors").is_file()
