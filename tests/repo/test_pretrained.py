"""Bundled models: what they were trained on, how large they are, and that their cards say so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors import safe_open

from speechadapt.core.files import read_lines
from speechadapt.models.card import bundled_models, read_card, training_ids
from tests.repo.project import PACKAGE, ROOT

MODELS = bundled_models()
FORBIDDEN_FILE = ROOT / "tests" / "repo" / "forbidden_ids.txt"
MOST_MEGABYTES = 60.0
MODEL_MEGABYTES = {
    "usm": 14.0,
    "whisper": 14.0,
    "ast": 8.0,
    "diffusion": 14.0,
    "restorer": 10.0,
    "xvector": 1.0,
}


def forbidden_ids() -> frozenset[str]:
    """Return the items no model may be trained on."""
    lines = FORBIDDEN_FILE.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def leaks(folder: Path) -> list[str]:
    """Return the training items of a model folder that are forbidden."""
    return sorted(training_ids(folder) & forbidden_ids())


@pytest.mark.parametrize("name", MODELS)
def test_no_model_was_trained_on_held_out_items(name: str) -> None:
    assert training_ids(MODELS[name]), f"{name} names no training item"
    assert leaks(MODELS[name]) == []


def test_a_planted_leak_is_found(tmp_path: Path) -> None:
    held_out = sorted(forbidden_ids())[0]
    (tmp_path / "training_ids.txt").write_text(f"some-training-item\n{held_out}\n")
    assert leaks(tmp_path) == [held_out]


def test_the_forbidden_list_covers_the_held_out_sets() -> None:
    forbidden = forbidden_ids()
    assert len(forbidden) > 1900
    corpora = {name.partition("-")[0] for name in forbidden}
    assert {"fsdd", "speech_commands", "orders", "wake", "librispeech", "mixtures"} <= corpora
    assert any(re.fullmatch(r"esc10-\d+_4-.*", name) for name in forbidden)


def test_the_demo_clips_are_held_out() -> None:
    rows = [row for _, row in read_lines(PACKAGE / "demo" / "manifest.jsonl")]
    assert {row["id"] for row in rows} <= forbidden_ids()


@pytest.mark.parametrize("name", MODELS)
def test_a_card_is_whole(name: str) -> None:
    card = read_card(MODELS[name])
    assert card.name == name
    assert card.data
    assert card.scores
    assert card.limits
    assert all(corpus.split == "train" for corpus in card.data)
    assert all(re.fullmatch(r"[0-9a-f]{64}", corpus.manifest_sha256) for corpus in card.data)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_half_precision_and_within_budget(name: str) -> None:
    paths = sorted(MODELS[name].rglob("*.safetensors"))
    assert paths
    kinds = set()
    for path in paths:
        with safe_open(path, framework="numpy") as tensors:
            kinds |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}
    assert not kinds & {"F32", "F64"}
    size = sum(path.stat().st_size for path in paths) / 1e6
    limit = next((most for key, most in MODEL_MEGABYTES.items() if key in name), MOST_MEGABYTES)
    assert size <= limit


def test_all_models_together_stay_small() -> None:
    size = sum(path.stat().st_size for path in (PACKAGE / "pretrained").rglob("*.*"))
    assert size / 1e6 <= MOST_MEGABYTES
