from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import attach
from speechadapt.adapters.retrieval import (
    CARD,
    EXAMPLES,
    describe_clips,
    layer_of,
    make_card,
    read_card,
    save_card,
)
from speechadapt.core.errors import CheckpointError, ConfigError, SiteError
from tests.unit.adapters.sounds import sounds

FAMILIES = ("whisper", "w2v_bert", "ast")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_description_is_the_mean_and_deviation_of_a_layer(load, family):
    encoder = load(family)
    clips = sounds("low", 1)
    seen = []
    last = encoder.model.get_submodule(encoder.sites["layer.1.end"].read)
    hook = last.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        encoder.encode(clips)
    hook.remove()
    states = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    wanted = torch.cat([states[0].mean(0), states[0].std(0, correction=0)])
    found = describe_clips(encoder, clips, 1)
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_is_described_alike_in_any_batch_and_whatever_acts(load, move, clips, family):
    encoder = load(family)
    batch = describe_clips(encoder, clips, 0)
    for clip, row in zip(clips, batch, strict=True):
        torch.testing.assert_close(describe_clips(encoder, [clip], 0)[0], row, rtol=0, atol=1e-5)
    move(attach(encoder, "lora"))
    assert torch.equal(describe_clips(encoder, clips, 0), batch)
    before = encoder.encode(clips)[0]
    describe_clips(encoder, clips, 0)
    assert torch.equal(encoder.encode(clips)[0], before)


def test_layers_above_are_not_computed(load, clips):
    encoder = load()
    ran = []
    above = encoder.model.get_submodule(encoder.sites["layer.1.end"].read)
    above.register_forward_pre_hook(lambda module, args: ran.append(1))
    describe_clips(encoder, clips, 0)
    assert ran == []


def test_a_third_of_the_way_up_is_the_default(load):
    encoder = load()
    assert layer_of(encoder, None) == 0
    assert layer_of(encoder, 1) == 1
    with pytest.raises(SiteError, match=r"layer 2 was to be looked at, .* the layers 0 to 1"):
        layer_of(encoder, 2)


def test_a_card_comes_back_from_its_folder(load, tmp_path):
    encoder = load()
    described = describe_clips(encoder, sounds("low", 5), 0)
    card = make_card(encoder, "low", described, 0, "low tones")
    torch.testing.assert_close(card.centroid, described.mean(0))
    torch.testing.assert_close(card.spread, described.std(0))
    again = read_card(save_card(card, tmp_path))
    assert (again.name, again.text, again.layer, again.count) == ("low", "low tones", 0, 5)
    assert again.base == encoder.fingerprint()
    for field in ("centroid", "spread", "examples"):
        assert torch.equal(getattr(again, field), getattr(card, field))


def test_a_card_keeps_some_examples_of_many(load):
    described = torch.randn(1000, 4)
    card = make_card(load(), "many", described, 0)
    assert card.count == 1000
    assert card.examples.shape == (EXAMPLES, 4)
    assert torch.equal(card.examples[[0, -1]], described[[0, -1]])


def test_a_card_takes_two_recordings(load):
    with pytest.raises(ConfigError, match="from 1 recordings; it takes 2"):
        make_card(load(), "one", torch.randn(1, 4), 0)


def test_a_missing_or_damaged_card_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="has no card to be found by"):
        read_card(tmp_path)
    (tmp_path / CARD).write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="has no card to be found by"):
        read_card(tmp_path)
