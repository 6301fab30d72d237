"""`speechadapt adapters fuse`, `index` and `search`, from folder to folder."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.adapters.composite_store import load_composite, read_composite
from speechadapt.adapters.retrieval_index import read_index
from speechadapt.encoders.catalog import load_encoder
from tests import command
from tests.unit.adapters.sounds import sounds

run = partial(command.call, "adapters")


KINDS = ("low", "noise")


@pytest.fixture
def base(tiny_folder) -> Path:
    return tiny_folder("whisper")


@pytest.fixture
def write(base: Path, tmp_path: Path):
    """Write an adapter that changes something into the folder of a run."""

    def make(name: str, method: str = "parallel", seed: int = 0) -> Path:
        encoder = load_encoder(base)
        torch.manual_seed(seed)
        handle = attach(encoder, method, name=name)
        with torch.no_grad():
            for tensor in handle.parameters():
                tensor += 0.1 * torch.randn(tensor.shape)
        facts = {"data": f"{name} sounds in Arabic"}
        return store.save(handle, tmp_path / name / "best", training=facts)

    return make


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for kind in KINDS:
        for number, clip in enumerate(sounds(kind, 6)):
            name = f"{kind}{number}.wav"
            soundfile.write(tmp_path / name, clip.numpy(), 16000)
            text = "even" if number % 2 else "odd"
            rows.append({"audio_filepath": name, "task": kind, "text": text})
    path = tmp_path / "mix.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_mean_refers_to_its_adapters_or_holds_them(base, write, tmp_path, capsys):
    folders = [write(name, seed=seed) for seed, name in enumerate(KINDS)]
    assert run("fuse", *folders, "--base", base, "-o", tmp_path / "mean") == 0
    assert "fuse(low, noise, method=mean), which refers to" in capsys.readouterr().out
    assert load_composite(load_encoder(base), tmp_path / "mean")
    words = ["--method", "average", "--bundle", "-o", tmp_path / "held"]
    assert run("fuse", *folders, "--base", base, *words) == 0
    assert all(part.bundled for part in read_composite(tmp_path / "held").parts)


def test_merged_adapters_are_one_ordinary_adapter(base, write, manifest, tmp_path, capsys):
    folders = [write(name, seed=seed) for seed, name in enumerate(KINDS)]
    words = ["--method", "mera", "--set", "method=acts", "--data", manifest]
    assert run("fuse", *folders, "--base", base, *words, "-o", tmp_path / "one") == 0
    assert "as one adapter" in capsys.readouterr().out
    stored = store.read(tmp_path / "one")
    assert stored.method == "parallel"
    assert stored.details["training"]["merged from"] == "low, noise"
    low_rank = [write(f"{name}-lora", "lora", seed) for seed, name in enumerate(KINDS)]
    words = ["--method", "ties", "--set", "density=0.3", "--set", "rank=4"]
    assert run("fuse", *low_rank, "--base", base, *words, "-o", tmp_path / "two") == 0
    assert store.read(tmp_path / "two").config["rank"] == 4


def test_an_index_is_made_and_searched(base, write, manifest, tmp_path, capsys):
    folders = [write(name, seed=seed) for seed, name in enumerate(KINDS)]
    target = tmp_path / "index"
    words = ["--base", base, "--data", manifest, "-o", target, "--layer", 1, "--layer", 0]
    assert run("index", *folders, *words) == 0
    assert read_index(target).layers == (0, 1)
    # what is said three times or more is kept apart
    assert read_index(target).owners.tolist() == [0, 0, 1, 1]
    capsys.readouterr()
    assert run("search", "arabic", "noises", "--index", target, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == ["noise", "low"]
    assert run("search", "violin", "--index", target) == 0
    assert "no adapter of" in capsys.readouterr().out
    # the cards stay, so that another index needs no recordings
    assert run("index", folders[0], "--base", base, "-o", tmp_path / "again") == 0
    assert read_index(tmp_path / "again").names == ("low",)


def test_an_adapter_without_recordings_is_named(base, write, manifest, tmp_path, capsys):
    folders = [write("low"), write("voices", seed=1)]
    words = ["--base", base, "--data", manifest, "-o", tmp_path / "index"]
    assert run("index", *folders, *words) != 0
    assert "no row whose task is 'voices'" in capsys.readouterr().err


def test_unlike_adapters_are_named(base, write, tmp_path, capsys):
    folders = [write("low"), write("noise", "lora")]
    assert run("fuse", *folders, "--base", base, "-o", tmp_path / "x") != 0
    assert "'noise'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
