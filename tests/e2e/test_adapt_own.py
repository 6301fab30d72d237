"""`speechadapt adapt DATA`: from a folder of clips to an adapter that `transcribe` takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from speechadapt.adapters.store import read
from speechadapt.text.alphabet import english
from speechadapt.training.conformer import ConformerConfig, new_extractor, new_model, save_model
from tests.command import call
from tests.own_data import tone, write


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a head for English letters."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    shape = ConformerConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = new_model(shape, english())
    save_model(model, new_extractor(shape), english(), folder)
    return folder


@pytest.fixture
def data(demo_clips: Path, tmp_path: Path) -> Path:
    """The shipped clips, one of them twice, and a silent one."""
    folder = tmp_path / "clips"
    shutil.copytree(demo_clips, folder)
    first = sorted(folder.glob("*.flac"))[0]
    for suffix in (".flac", ".txt"):
        shutil.copyfile(first.with_suffix(suffix), folder / f"zz-again{suffix}")
    write(folder / "zz-mute.wav", 0 * tone())
    (folder / "zz-mute.txt").write_text("hello\n")
    return folder


@pytest.fixture
def words(data: Path, base: Path, tmp_path: Path) -> list[str]:
    """Words that adapt the tiny model to the clips."""
    options = ("trainer.steps=4", "trainer.evaluate_every=2", "batch.batch_s=6")
    start = ["adapt", str(data), "--base", str(base), "-o", str(tmp_path / "out")]
    return [*start, *(word for option in options for word in ("-O", option))]


def files(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*"))


def test_a_dry_run_looks_over_the_data_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(tmp_path)
    assert call(*words, "--dry-run") == 0
    plan = capsys.readouterr().out
    for part in (
        "10 of 12 recordings can be used",
        "1 silence: zz-mute.wav",
        "1 same recording and text",
        "adapter lora",
        "4, each of 1",
        "s a step",
        "note: not every",
    ):
        assert part in plan
    assert files(tmp_path) == before


def test_an_adapter_is_trained_stopped_gone_on_with_scored_and_used(
    words: list[str], data: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words, "-O", "trainer.sitting_s=1e-6") == 0
    said = capsys.readouterr()
    assert "stopped at step 1 of 4; the same command goes on" in said.err
    assert "before: WER" in said.out
    assert not (tmp_path / "out").exists()

    assert call(*words) == 0
    said = capsys.readouterr().out
    for part in ("WER %", "before", "after", "2 held-out recordings", "the base writes every"):
        assert part in said
    assert "Adapting " in said.splitlines()[-2]
    out, run = tmp_path / "out", tmp_path / "out.run"
    assert {path.name for path in out.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip
    stored = read(out)
    assert stored.method == "lora"
    assert stored.details["scores"]["held out"]["after"]["items"] == 2
    assert "zz-mute.wav" in (run / "findings.jsonl").read_text()
    trained = set((run / "training_ids.txt").read_text().split())
    rows = [json.loads(line) for line in (run / "data.jsonl").read_text().splitlines()]
    assert trained == {row["id"] for row in rows if row["split"] == "train"}

    log, weights = (
        (run / "log.jsonl").read_bytes(),
        (out / "adapter_model.safetensors").read_bytes(),
    )
    assert call(*words) == 0
    assert (run / "log.jsonl").read_bytes() == log
    assert (out / "adapter_model.safetensors").read_bytes() == weights
    assert call(*words, "--seed", "3") == 5
    assert "trainer.seed: 0 -> 3" in capsys.readouterr().err

    clip = sorted(data.glob("*.flac"))[0]
    job = ["transcribe", str(clip), "--model", str(base), "--adapter", str(out)]
    assert call(*job, "-o", str(tmp_path / "texts")) == 0
    assert (tmp_path / "texts" / f"{clip.stem}.txt").is_file()


def test_a_manifest_of_ones_own_trains_by_recipe(
    words: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"audio_filepath": f"clips/{path.name}", "text": path.with_suffix(".txt").read_text()}
        for path in sorted((tmp_path / "clips").glob("[!z]*.flac"))
    ]
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = ["train", "recipe=adapt/lora", f"data.manifest={manifest}", "data.held_out=0.2"]
    tiny = ["data.noise=[]", f"base={base}", "adapter.rank=1", "batch.batch_s=6", "batch.max_s=12"]
    steps = ["trainer.steps=2", "trainer.evaluate_every=2", f"run.folder={tmp_path / 'run'}"]
    assert call(*recipe, *tiny, *steps) == 0
    assert "mine WER" in capsys.readouterr().out
    assert (tmp_path / "run/last/adapter_model.safetensors").is_file()
