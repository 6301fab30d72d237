from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from speechadapt.adapters import store
from speechadapt.adapters.retrieval import describe_clips, make_card, read_card, save_card
from speechadapt.adapters.retrieval_index import INDEX, build_index, read_index, save_index
from speechadapt.core.errors import CheckpointError, ConfigError
from tests.unit.adapters.sounds import KINDS, sounds

TEXTS = {"low": "low hum of Arabic digits", "high": "high Arabic words", "noise": "noisy digits"}


@pytest.fixture
def indexed(load, trained, tmp_path):
    """Return an encoder, and the folders of three adapters with cards."""
    encoder = load()
    folders = []
    for handle, kind in zip(trained(encoder), KINDS, strict=True):
        folder = store.save(handle, tmp_path / kind)
        described = describe_clips(encoder, sounds(kind, 12), 0)
        save_card(make_card(encoder, kind, described, 0, TEXTS[kind]), folder)
        folders.append(folder)
    return encoder, folders


def heard(encoder, kind, count=5):
    return describe_clips(encoder, sounds(kind, count, first=100), 0)


def test_recordings_find_the_adapter_of_their_kind(indexed, tmp_path):
    encoder, folders = indexed
    index = build_index(encoder, folders, tmp_path / "index")
    for number, kind in enumerate(KINDS):
        weights = index.weights(heard(encoder, kind), threshold=1e9)
        wanted = torch.zeros(5, 3)
        wanted[:, number] = 1.0
        assert torch.equal(weights, wanted)


def test_the_top_share_the_weight_by_their_distance(indexed, tmp_path):
    encoder, folders = indexed
    index = build_index(encoder, folders, tmp_path / "index")
    described = heard(encoder, "low")
    distance = index.distances(described)
    weights = index.weights(described, top=2, temperature=50.0, threshold=1e9)
    assert ((weights > 0).sum(1) == 2).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    near, next_ = distance.sort(dim=1).values[:, :2].unbind(1)
    ratio = weights.max(1).values / weights[weights > 0].reshape(5, 2).min(1).values
    torch.testing.assert_close(ratio, ((next_.square() - near.square()) / 100).exp())
    # colder gives the nearest all of it, warmer shares it out
    assert index.weights(described, 3, 1e-3, 1e9).max() > 0.999
    assert index.weights(described, 3, 1e6, 1e9).max() < 0.34


def test_nothing_near_means_the_base_alone(indexed, tmp_path):
    encoder, folders = indexed
    index = build_index(encoder, folders, tmp_path / "index")
    known = torch.cat([heard(encoder, kind) for kind in KINDS])
    index = index.calibrated(known, rejected=0.05)
    assert float((index.weights(known).sum(1) == 0).float().mean()) <= 0.1
    assert not index.weights(heard(encoder, "clicks")).any()
    assert index.weights(heard(encoder, "clicks"), threshold=1e9).any()


def test_a_threshold_takes_recordings(indexed, tmp_path):
    encoder, folders = indexed
    index = build_index(encoder, folders, tmp_path / "index")
    with pytest.raises(ConfigError, match="from recordings, but none were given"):
        index.calibrated(heard(encoder, "low")[:0])


def test_words_find_adapters_by_their_cards(indexed, tmp_path):
    encoder, folders = indexed
    index = build_index(encoder, folders, tmp_path / "index")
    assert [name for name, _ in index.search("noisy arabic digits")] == ["noise", "low", "high"]
    assert index.search("High")[0][0] == "high"
    assert index.search("violin") == []
    assert index.search("nois")[0][0] == "noise"


def test_an_index_comes_back(indexed, tmp_path):
    encoder, folders = indexed
    index = build_index(encoder, folders, tmp_path / "index", threshold=3.0)
    again = read_index(tmp_path / "index")
    assert again.entries == index.entries
    assert (again.threshold, again.layer) == (3.0, 0)
    described = heard(encoder, "high")
    assert torch.equal(again.weights(described), index.weights(described))
    assert [again.part_folder(one).resolve() for one in again.entries] == folders


def test_cards_without_enough_examples_are_whitened_by_their_spread(indexed, tmp_path):
    encoder, folders = indexed
    for folder in folders:
        card = read_card(folder)
        save_card(replace(card, examples=card.examples[:1]), folder)
    index = build_index(encoder, folders, tmp_path / "index")
    assert torch.equal(index.whitening, torch.diag(index.whitening.diagonal()))
    assert index.weights(heard(encoder, "low"), threshold=1e9).argmax(1).tolist() == [0] * 5


def test_an_empty_index_is_refused(indexed, tmp_path):
    encoder, folders = indexed
    with pytest.raises(ConfigError, match="an index of no adapters"):
        build_index(encoder, [], tmp_path / "index")
    index = build_index(encoder, folders, tmp_path / "index")
    save_index(replace(index, entries=()), tmp_path / "empty")
    with pytest.raises(ConfigError, match="holds no adapter"):
        read_index(tmp_path / "empty")


def test_a_card_of_another_base_or_layer_is_named(indexed, tmp_path):
    encoder, folders = indexed
    card = read_card(folders[1])
    save_card(replace(card, layer=1), folders[1])
    with pytest.raises(CheckpointError, match="card of 'high' is of layer 1, that of 'low'"):
        build_index(encoder, folders, tmp_path / "index")
    save_card(replace(card, base="0" * 64), folders[1])
    with pytest.raises(CheckpointError, match="card of 'high' was made with the weights 00000000"):
        build_index(encoder, folders, tmp_path / "index")
    save_card(replace(card, name="low"), folders[1])
    with pytest.raises(ConfigError, match="two adapters of the index are called 'low'"):
        build_index(encoder, folders, tmp_path / "index")


def test_a_missing_or_damaged_index_is_refused(indexed, tmp_path):
    encoder, folders = indexed
    with pytest.raises(CheckpointError, match="was to be read as an index"):
        read_index(tmp_path / "nowhere")
    build_index(encoder, folders, tmp_path / "index")
    path = tmp_path / "index" / INDEX
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(facts | {"format": "x"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="was to be read as an index"):
        read_index(tmp_path / "index")
