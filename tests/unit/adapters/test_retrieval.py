from __future__ import annotations

import json

import pytest
import torch

from speechadapt.adapters.attach import attach
from speechadapt.adapters.retrieval import (
    CARD,
    EXAMPLES,
    GROUPS,
    describe_clips,
    layers_of,
    make_card,
    read_card,
    save_card,
)
from speechadapt.core.errors import CheckpointError, ConfigError, SiteError
from tests.unit.adapters.sounds import sounds

FAMILIES = ("whisper", "w2v_bert", "ast")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_description_is_the_mean_and_deviation_of_each_layer(load, family):
    encoder = load(family)
    clips = sounds("low", 1)
    seen = []
    for layer in (0, 1):
        module = encoder.model.get_submodule(encoder.sites[f"layer.{layer}.end"].read)
        hook = module.register_forward_hook(lambda module, args, output: seen.append(output))
        with torch.no_grad():
            encoder.encode(clips)
        hook.remove()
    wanted = []
    for output in seen:
        states = output[0] if isinstance(output, tuple) else output
        wanted += [states[0].mean(0), states[0].std(0, correction=0)]
    found = describe_clips(encoder, clips, [0, 1])
    torch.testing.assert_close(found[0], torch.cat(wanted), rtol=0, atol=1e-5)
    assert torch.equal(describe_clips(encoder, clips, [1])[0], found[0, found.shape[1] // 2 :])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_is_described_alike_in_any_batch_and_whatever_acts(load, move, clips, family):
    encoder = load(family)
    batch = describe_clips(encoder, clips, [0])
    for clip, row in zip(clips, batch, strict=True):
        torch.testing.assert_close(describe_clips(encoder, [clip], [0])[0], row, rtol=0, atol=1e-5)
    move(attach(encoder, "lora"))
    assert torch.equal(describe_clips(encoder, clips, [0]), batch)
    before = encoder.encode(clips)[0]
    describe_clips(encoder, clips, [0])
    assert torch.equal(encoder.encode(clips)[0], before)


def test_layers_above_are_not_computed(load, clips):
    encoder = load()
    ran = []
    above = encoder.model.get_submodule(encoder.sites["layer.1.end"].read)
    above.register_forward_pre_hook(lambda module, args: ran.append(1))
    describe_clips(encoder, clips, [0])
    assert ran == []


def test_the_first_layer_and_one_a_third_of_the_way_up_are_the_default(load):
    encoder = load()
    assert layers_of(encoder) == (0,)
    assert layers_of(encoder, [1, 0, 1]) == (0, 1)
    with pytest.raises(SiteError, match=r"layer 2 was to be looked at, .* the layers 0 to 1"):
        layers_of(encoder, [0, 2])
    last = encoder.sites["layer.1.end"]
    encoder.sites = encoder.sites | {f"layer.{number}.end": last for number in range(6)}
    assert layers_of(encoder) == (0, 2)


def test_a_card_comes_back_from_its_folder(load, tmp_path):
    encoder = load()
    described = describe_clips(encoder, sounds("low", 5), [0, 1])
    card = make_card(encoder, "low", described, [0, 1], "low tones", ["a", "a", "b", "a", "c"])
    again = read_card(save_card(card, tmp_path))
    assert (again.name, again.text, again.layers, again.count) == ("low", "low tones", (0, 1), 5)
    assert again.base == encoder.fingerprint()
    assert torch.equal(again.groups, card.groups)
    for field in ("centroids", "examples"):  # kept in half precision
        torch.testing.assert_close(getattr(again, field), getattr(card, field), rtol=1e-3, atol=0)


def test_recordings_that_say_the_same_share_a_centroid(load):
    rows = torch.randn(11, 4)
    said = ["no", "yes", "no", "yes", "", "no", "yes", "once", "twice", "", ""]
    card = make_card(load(), "words", rows, [0], said=said)
    wanted = [rows[[0, 2, 5]], rows[[1, 3, 6]], rows[[4, 7, 8, 9, 10]]]
    torch.testing.assert_close(card.centroids, torch.stack([one.mean(0) for one in wanted]))
    assert card.groups.tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 2, 2, 2]
    torch.testing.assert_close(card.residuals[4], rows[4] - wanted[2].mean(0))
    alone = make_card(load(), "words", rows, [0])
    torch.testing.assert_close(alone.centroids, rows.mean(0, keepdim=True))


def test_no_more_is_kept_apart_than_is_said_most_often(load):
    said = [f"word {number}" for number in range(GROUPS + 6) for _ in range(3 + number % 2)]
    card = make_card(load(), "words", torch.randn(len(said), 2), [0], said=said)
    assert len(card.centroids) == GROUPS + 1


def test_a_card_keeps_some_examples_of_many(load):
    described = torch.randn(1000, 4)
    card = make_card(load(), "many", described, [0])
    assert card.count == 1000
    assert card.examples.shape == (EXAMPLES, 4)
    assert torch.equal(card.examples[[0, -1]], described[[0, -1]])


def test_transcripts_are_as_many_as_recordings(load):
    with pytest.raises(ConfigError, match="from 3 recordings, but 2 transcripts were given"):
        make_card(load(), "three", torch.randn(3, 4), [0], said=["a", "b"])


def test_a_card_takes_two_recordings(load):
    with pytest.raises(ConfigError, match="from 1 recordings; it takes 2"):
        make_card(load(), "one", torch.randn(1, 4), [0])


def test_a_missing_or_damaged_card_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="has no card to be found by"):
        read_card(tmp_path)
    (tmp_path / CARD).write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="has no card to be found by"):
        read_card(tmp_path)


def test_a_card_of_an_earlier_release_is_refused_with_what_to_do(load, tmp_path):
    encoder = load()
    card = make_card(encoder, "low", torch.randn(4, 2), [0])
    path = save_card(card, tmp_path) / CARD
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["format_version"]
    path.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"format version 1; .* reads 2.*adapters index --data"
    ):
        read_card(tmp_path)
