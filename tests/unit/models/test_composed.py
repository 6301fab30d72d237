"""Compositions of saved adapters as recognisers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.adapters.composed import compose
from speechadapt.adapters.composite_store import save_composite
from speechadapt.adapters.retrieval import describe_clips, make_card, save_card
from speechadapt.adapters.retrieval_index import build_index
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.models.adapted import Head, save_adapted
from speechadapt.models.build import load
from speechadapt.models.composed import read_wanted
from speechadapt.models.transcript import Piece, assemble
from speechadapt.text.alphabet import Alphabet

LETTERS = Alphabet(("<pad>", "|", *"خلف"))
CLIPS = [(np.random.default_rng(n).normal(size=12000) * 0.1).astype(np.float32) for n in range(3)]


@pytest.fixture
def write(ctc_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write an adapter that matters with a head, each seed another one."""

    def make(name: str, seed: int, head_seed: int = 0, base: Path = ctc_folder) -> Path:
        encoder = load_encoder(base)
        torch.manual_seed(seed)
        handle = attach(encoder, "lora", config={"rank": 2})
        for part in handle.parameters():
            nn.init.normal_(part, std=0.2)
        torch.manual_seed(head_seed)
        linear = nn.Linear(encoder.dim, len(LETTERS))
        described = Head(LETTERS, 0.125, "full", "ar")
        folder = tmp_path / name / "best"
        save_adapted(folder, encoder, handle, linear, described, training={}, scores={})
        return folder

    return make


def test_every_hypothesis_says_who_spoke(write, ctc_folder: Path) -> None:
    text = f"average({write('a', 1)}: 3, {write('b', 2)}: 1)"
    recogniser = load(ctc_folder, adapter=text)
    found = recogniser.decode_batch(CLIPS)
    assert [one.details["adapters"] for one in found] == [{"a": 0.75, "b": 0.25}] * 3
    frames, _ = recogniser.encoder.encode([torch.from_numpy(CLIPS[0])])
    plain, _ = load(ctc_folder).encoder.encode([torch.from_numpy(CLIPS[0])])
    assert not torch.allclose(frames, plain, atol=1e-3)


def test_segments_carry_the_weights_into_the_json(write, ctc_folder: Path) -> None:
    recogniser = load(ctc_folder, adapter=f"stack({write('a', 1)}, {write('b', 2)})")
    hypothesis = recogniser.decode_batch(CLIPS)[0]
    row = assemble([Piece(0.0, 0.75, hypothesis)], 0.75).to_json()["segments"][0]
    assert row["adapters"] == {"a": 1.0, "b": 1.0}
    alone = load(ctc_folder, adapter=write("a", 1)).decode_batch(CLIPS)[0]
    assert "adapters" not in assemble([Piece(0.0, 0.75, alone)], 0.75).to_json()["segments"][0]


def test_a_saved_composition_is_a_folder_like_any_other(write, ctc_folder, tmp_path) -> None:
    folders = {name: write(name, seed) for seed, name in enumerate("ab")}
    encoder = load_encoder(ctc_folder)
    for name, folder in folders.items():
        store.load(encoder, folder, name=name, activate=False)
    compose(encoder, "fuse(a, b, key_width=4)")
    save_composite(encoder, "fuse(a, b, key_width=4)", tmp_path / "fused")
    recogniser = load(adapter=tmp_path / "fused", name=ctc_folder)
    said = recogniser.decode_batch(CLIPS)[0].details["adapters"]
    assert set(said) == {"a", "b"}
    assert sum(said.values()) == pytest.approx(1.0, abs=1e-3)
    assert recogniser.margin_s == 0.125


def test_a_composition_with_a_head_of_its_own_uses_that(write, ctc_folder, tmp_path) -> None:
    folders = {"a": write("a", 1, head_seed=1), "b": write("b", 2, head_seed=2)}
    encoder = load_encoder(ctc_folder)
    for name, folder in folders.items():
        store.load(encoder, folder, name=name, activate=False)
    compose(encoder, "fuse(a, b)")
    head = nn.Linear(encoder.dim, len(LETTERS))
    described = Head(LETTERS, 0.25, "full", "ar").to_json()
    save_composite(
        encoder,
        "fuse(a, b)",
        tmp_path / "fused",
        bundle=True,
        head=head.state_dict(),
        head_config=described,
    )
    recogniser = load(ctc_folder, adapter=str(tmp_path / "fused"))
    assert torch.equal(recogniser.decoder.head.weight, head.weight)
    assert recogniser.margin_s == 0.25


def test_adapters_are_chosen_for_each_clip(write, ctc_folder, tmp_path) -> None:
    encoder = load_encoder(ctc_folder)
    loud = [torch.from_numpy(50 * clip.cumsum().astype(np.float32)) for clip in CLIPS]
    kinds = {"quiet": [torch.from_numpy(clip) for clip in CLIPS], "loud": loud}
    folders = []
    for seed, (name, clips) in enumerate(kinds.items()):
        folders.append(write(name, seed))
        described = describe_clips(encoder, clips, [0])
        save_card(make_card(encoder, name, described, [0]), folders[-1])
    build_index(encoder, folders, tmp_path / "index", threshold=1e9)
    recogniser = load(ctc_folder, adapter=f"auto({tmp_path / 'index'})")
    recogniser.margin_s = 0.0
    found = recogniser.decode_batch([loud[0].numpy(), CLIPS[1]])
    assert [one.details["adapters"] for one in found] == [{"loud": 1.0}, {"quiet": 1.0}]


def test_unlike_heads_are_named(write, ctc_folder) -> None:
    text = f"fuse({write('a', 1, head_seed=1)}, {write('b', 2, head_seed=2)})"
    with pytest.raises(ConfigError, match=r"unlike heads: '.*a/best' and '.*b/best'"):
        load(ctc_folder, adapter=text)


def test_unlike_bases_are_named(write, ctc_folder, tmp_path) -> None:
    from speechadapt.encoders.tiny import write_tiny

    other = write_tiny("w2v_bert", tmp_path / "base", seed=7)
    text = f"fuse({write('a', 1)}, {write('b', 2, base=other)})"
    with pytest.raises(ConfigError, match=r"unlike bases: '.*a/best' .*'.*b/best'"):
        load(ctc_folder, adapter=text)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("fuse(nowhere, elsewhere)", CheckpointError, "'nowhere' was to be read as an adapter"),
        ("auto", ConfigError, "names no adapter"),
        ("auto(nowhere)", CheckpointError, "'nowhere' was to be read as an index"),
        ("nowhere", CheckpointError, "'nowhere' was to be read as an adapter"),
        ("fuse(a", ConfigError, "was to be read as a composition"),
    ],
)
def test_what_is_not_there_is_named(text, error, message) -> None:
    with pytest.raises(error, match=message):
        read_wanted(text)


def test_two_adapters_of_one_name_are_refused(write) -> None:
    folder = write("a", 1)
    with pytest.raises(ConfigError, match="two adapters of one name"):
        read_wanted(f"fuse({folder}, {folder.parent / '.' / 'best'}/)")
