"""`speechadapt train recipe=...` for an adapter, then `transcribe --adapter` with what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import call
from tests.tiny_tasks import base_folder, write_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Words that adapt a tiny model into `run`."""
    recipe = write_recipe(tmp_path, "adapt", tmp_path / "pack")
    folder = f"run.folder={tmp_path / 'run'}"
    return ["train", *recipe, "--config-dir", str(tmp_path), folder, "adapter.rank=2"]


def test_an_adapter_is_trained_reported_and_used(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words, "--dry-run") == 0
    plan = capsys.readouterr().out
    assert "adapter lora" in plan
    assert not (tmp_path / "run").exists()
    assert call(*words, "head_rate=0.02") == 0
    printed = capsys.readouterr().out
    assert "parameters trained" in printed
    assert "best: tones WER" in printed
    run = tmp_path / "run"
    report = json.loads((run / "report.json").read_text())
    assert report["parameters"]["trained_by_part"]["adapter"] > 0
    assert report["scores"]["last"]["tones"]["items"] == 2
    details = json.loads((run / "best/adapter_config.json").read_text())
    assert details["method"] == "lora"
    assert details["head"]["language"] == "en"
    assert json.loads((run / "run.json").read_text())["sources"]["base/model.safetensors"]

    clips = tmp_path / "pack/audio/tones/dev"
    asked = ["transcribe", clips, "--model", base_folder(tmp_path), "--device", "cpu"]
    out = tmp_path / "out"
    assert call(*asked, "--adapter", run / "best", "-o", out) == 0
    assert len(list(out.rglob("*.txt"))) == 2
    # the adapter is part of what a job is: another one does not go on in its folder
    capsys.readouterr()
    assert call(*asked, "--adapter", run / "last", "-o", out) == 5
    assert "adapter" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_adapt_together(words: list[str], tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    upper = ["roles=[layer.1.attn.v]", "repeat.batches=2", "prefix.cache=memory"]
    command = [sys.executable, *launcher, "-m", "speechadapt", *words, *upper]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("parameters trained") == 1
    assert (tmp_path / "run/last/adapter_model.safetensors").is_file()
