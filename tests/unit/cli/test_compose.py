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
from speechadapt.adapters.retrieval import read_card
from speechadapt.adapters.retrieval_index import THRESHOLD, read_index
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


def divided(manifest: Path, target: Path) -> Path:
    """Write a manifest in which the last two recordings of each task are held out."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        number = int(row["audio_filepath"].removesuffix(".wav")[-1])
        row["split"] = "dev" if number > 3 else "train"
    rows.append({"audio_filepath": "gone.wav", "task": "low", "split": "dev"})
    rows.append({"audio_filepath": "low0.wav", "task": "low", "split": "test"})
    target.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return target


def test_an_index_is_tried_on_what_is_held_out(base, write, manifest, tmp_path, capsys):
    folders = [write(name, seed=seed) for seed, name in enumerate(KINDS)]
    mix = divided(manifest, tmp_path / "divided.jsonl")
    words = ["--base", base, "--data", mix, "-o", tmp_path / "index"]
    assert run("index", *folders, *words) == 0
    out = capsys.readouterr()
    assert "left out: " in out.err
    assert "gone.wav" in out.err
    rows = [line.split() for line in out.out.splitlines()]
    assert ["low", "2", "100.0", "0.0", "-"] in rows
    assert [row[0] for row in rows if row[0] in KINDS] == list(KINDS)
    assert read_card(folders[0]).count == 4
    chosen = read_index(tmp_path / "index").threshold
    assert rows[-1] == ["threshold:", f"{chosen:.3g}"]
    assert chosen != THRESHOLD
    # all of them may be left out, or a threshold be set by hand
    assert run("index", *folders, *words, "--rejected", 0.75) == 0
    assert read_index(tmp_path / "index").threshold < chosen
    assert run("index", *folders, *words, "--threshold", 7) == 0
    assert read_index(tmp_path / "index").threshold == 7
    assert run("index", *folders, *words, "--rejected", 1) != 0
    assert "--rejected must be at least 0 and below 1" in capsys.readouterr().err


def test_a_task_without_an_adapter_tries_the_index_too(base, write, manifest, tmp_path, capsys):
    mix = divided(manifest, tmp_path / "divided.jsonl")
    folder = write("low")
    assert run("index", folder, "--base", base, "--data", mix, "-o", tmp_path / "index") == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("noise"))
    task, count, right, left, *_ = line.split()
    assert (task, count, right) == ("noise", "2", "-")
    assert float(left) == 100


def test_an_adapter_without_recordings_is_named(base, write, manifest, tmp_path, capsys):
    folders = [write("low"), write("voices", seed=1)]
    words = ["--base", base, "--data", manifest, "-o", tmp_path / "index"]
    assert run("index", *folders, *words) != 0
    assert "no row to train by whose task is 'voices'" in capsys.readouterr().err


def test_unlike_adapters_are_named(base, write, tmp_path, capsys):
    folders = [write("low"), write("noise", "lora")]
    assert run("fuse", *folders, "--base", base, "-o", tmp_path / "x") != 0
    assert "'noise'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
