from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from speechadapt.adapters import store
from speechadapt.adapters.retrieval import describe_clips, make_card, read_card, save_card
from speechadapt.adapters.retrieval_index import (
    INDEX,
    Entry,
    Index,
    build_index,
    placed,
    reach_of,
    read_index,
    save_index,
    whiten,
)
from speechadapt.core.errors import CheckpointError, ConfigError
from tests.unit.adapters.sounds import KINDS, sounds

TEXTS = {"low": "low hum of Arabic digits", "high": "high Arabic words", "noise": "noisy digits"}


def index_of(cards):
    """Return an index of cards whose adapters are nowhere."""
    shift, whitening, _ = whiten(cards)
    entries = tuple(Entry(card.name, card.name, "", "", 1.0) for card in cards)
    return Index(entries, (0,), "", *placed(cards, shift, whitening), shift, whitening, 2.0)


@pytest.fixture
def indexed(load, trained, tmp_path):
    """Return an encoder, and the folders of three adapters with cards."""
    encoder = load()
    folders = []
    for handle, kind in zip(trained(encoder), KINDS, strict=True):
        folder = store.save(handle, tmp_path / kind)
        described = describe_clips(encoder, sounds(kind, 12), [0])
        save_card(make_card(encoder, kind, described, [0], TEXTS[kind]), folder)
        folders.append(folder)
    return encoder, folders


def heard(encoder, kind, count=5):
    return describe_clips(encoder, sounds(kind, count, first=100), [0])


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
    assert (again.threshold, again.layers) == (3.0, (0,))
    assert torch.equal(again.owners, torch.tensor([0, 1, 2]))
    described = heard(encoder, "high")
    assert torch.equal(again.weights(described), index.weights(described))
    assert [again.part_folder(one).resolve() for one in again.entries] == folders


def test_words_keep_tasks_of_the_same_voices_apart(load):
    """Two tasks of two words each: a word's direction says nothing, its place does."""
    words = torch.tensor([[8.0, 0.0], [-8.0, 0.0], [0.0, 8.0], [0.0, -8.0]])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 40, 2, generator=generator)
    heard = {"across": (words[:2, None] + noise[:2]), "upright": (words[2:, None] + noise[2:])}
    said = [word for word in "ab" for _ in range(40)]
    encoder = load()
    right = {}
    for name, texts in (("one centroid", []), ("one for each word", said)):
        cards = [
            make_card(encoder, task, rows.flatten(0, 1), [0], said=texts)
            for task, rows in heard.items()
        ]
        index = index_of(cards)
        tests = torch.cat([rows.flatten(0, 1) for rows in heard.values()])
        found = index.distances(tests).argmin(1)
        right[name] = float((found == torch.arange(2).repeat_interleave(80)).float().mean())
    assert right["one for each word"] > 0.99
    assert right["one centroid"] < 0.7


def test_the_distance_to_an_adapter_is_that_to_its_nearest_centroid(load):
    encoder = load()
    rows = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 50.0]]).repeat_interleave(4, 0)
    rows = rows + torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]).repeat(3, 1)
    said = [word for word in "ab" for _ in range(4)]
    cards = [
        make_card(encoder, "words", rows[:8], [0], said=said),
        make_card(encoder, "rest", rows[8:], [0]),
    ]
    index = index_of(cards)
    assert index.owners.tolist() == [0, 0, 1]
    found = index.distances(torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 50.0]]))
    torch.testing.assert_close(found[[0, 1, 2], [0, 0, 1]], torch.zeros(3), rtol=0, atol=1e-4)
    assert (found[[0, 1, 2], [1, 1, 0]] > 3).all()


def test_a_task_of_few_recordings_shapes_the_map_as_much_as_one_of_many(load):
    encoder = load()
    generator = torch.Generator().manual_seed(1)
    wide, narrow = torch.tensor([4.0, 1.0]), torch.tensor([1.0, 4.0])
    few = wide * torch.randn(60, 2, generator=generator)
    many = narrow * torch.randn(240, 2, generator=generator)
    cards = [make_card(encoder, "few", few, [0]), make_card(encoder, "many", many, [0])]
    _, whitening, _ = whiten(cards)
    covariance = torch.linalg.inv(whitening @ whitening.T)
    spread = covariance.diagonal()
    assert 0.6 < float(spread[0] / spread[1]) < 1.7  # 0.3 if recordings counted alike


def test_cards_of_hardly_any_recordings_are_whitened_by_their_spread(load):
    rows = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    cards = [make_card(load(), name, rows, [0]) for name in "abc"]
    _, whitening, own_share = whiten(cards)
    torch.testing.assert_close(whitening, torch.diag(torch.tensor([1.0, 0.5])))
    assert own_share == 0.0


def test_how_far_few_recordings_reach_is_what_new_ones_show(load):
    encoder, size = load(), 60
    generator = torch.Generator().manual_seed(2)
    mixing = torch.randn(size, size, generator=generator) * torch.logspace(0, -2, size)[:, None]
    drawn = {
        name: torch.randn(250, size, generator=generator) @ mixing for name in ("few", "b", "c")
    }
    cards = [
        make_card(encoder, name, rows[: 40 if name == "few" else 250], [0])
        for name, rows in drawn.items()
    ]
    shift, whitening, own_share = whiten(cards)
    (centroid, *_), _ = placed(cards, shift, whitening)
    fresh = ((drawn["few"][40:] - shift) @ whitening - centroid).norm(dim=1).quantile(0.9)
    naive = (cards[0].residuals @ whitening).norm(dim=1).quantile(0.9)
    assert naive < 0.85 * fresh  # each of the few pulled the map to itself
    assert reach_of(cards[0], whitening, own_share / 3) == pytest.approx(float(fresh), rel=0.06)
    # a card may hold some of its recordings alone; their mean is of them all
    many = replace(cards[0], count=100 * cards[0].count)
    pulled = reach_of(cards[0], whitening, 0.0) / reach_of(many, whitening, 0.0)
    assert pulled == pytest.approx((40 / 39) / (4000 / 3999))


def test_an_index_notes_how_far_each_adapter_reaches(indexed, tmp_path):
    encoder, folders = indexed
    cards = [read_card(folder) for folder in folders]
    _, whitening, own_share = whiten(cards)
    assert own_share > 0
    noted = [entry.reach for entry in build_index(encoder, folders, tmp_path / "index").entries]
    assert noted == pytest.approx([reach_of(card, whitening, own_share / 3) for card in cards])
    assert noted != pytest.approx([reach_of(card, whitening, 0.0) for card in cards])


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
    save_card(replace(card, layers=(1, 2)), folders[1])
    with pytest.raises(
        CheckpointError, match="card of 'high' is of the layers 1, 2, that of 'low'"
    ):
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
    path.write_text(json.dumps(facts | {"format_version": 1}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"version 1; this release reads .* version 2"):
        read_index(tmp_path / "index")
