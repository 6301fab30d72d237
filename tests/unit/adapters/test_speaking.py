from __future__ import annotations

import pytest
import torch

from speechadapt.adapters import store
from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment
from speechadapt.adapters.retrieval import describe_clips, make_card, save_card
from speechadapt.adapters.retrieval_index import build_index
from speechadapt.adapters.speaking import encode_spoken
from speechadapt.core.errors import ConfigError
from tests.unit.adapters.sounds import sound, sounds


@torch.no_grad()
def test_single_adapters_and_stacks_speak_with_weight_one(load, trained, clips, frames):
    encoder = load()
    trained(encoder)
    found, _, spoken = encode_spoken(encoder, ("a", "b"), clips)
    assert torch.equal(found, frames(encoder, ("a", "b")))
    assert spoken == [{"a": 1.0, "b": 1.0}] * 3
    assert encode_spoken(encoder, (), clips)[2] == [{}, {}, {}]


@torch.no_grad()
def test_mixtures_say_their_weights_for_each_recording(load, trained, clips):
    encoder = load()
    trained(encoder)
    names = compose(encoder, "fuse(a, b, c, method=gated, per=utterance)")
    for adapter in attachment(encoder, names[0]).module.adapters():
        adapter.weigher.weight.copy_(torch.randn(adapter.weigher.weight.shape))
    frames, lengths, spoken = encode_spoken(encoder, names, clips)
    for clip, said, row, valid in zip(clips, spoken, frames, lengths.tolist(), strict=True):
        alone, _, (single,) = encode_spoken(encoder, names, [clip])
        torch.testing.assert_close(alone[0], row[:valid], rtol=0, atol=1e-5)
        assert single == pytest.approx(said, abs=1e-3)
        assert list(said) == ["a", "b", "c"]
        assert sum(said.values()) == pytest.approx(1.0, abs=1e-3)
    assert spoken[0] != spoken[1]


@torch.no_grad()
def test_chosen_adapters_are_named_and_an_abstaining_row_names_none(load, trained, tmp_path):
    encoder = load()
    folders = []
    for handle, kind in zip(trained(encoder, names="ab"), ("low", "noise"), strict=True):
        folders.append(store.save(handle, tmp_path / kind))
        described = describe_clips(encoder, sounds(kind, 12), [0])
        save_card(make_card(encoder, kind, described, [0]), folders[-1])
    build_index(encoder, folders, tmp_path / "index", threshold=5.0)
    names = compose(encoder, f"auto({tmp_path / 'index'})")
    clips = [sound("noise", 50), sound("clicks", 51), sound("low", 52)]
    assert encode_spoken(encoder, names, clips)[2] == [{"noise": 1.0}, {}, {"low": 1.0}]
    with pytest.raises(ConfigError, match="2 of the compositions"):
        encode_spoken(encoder, (*names, *names), clips)
