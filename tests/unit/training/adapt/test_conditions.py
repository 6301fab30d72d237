from __future__ import annotations

import numpy as np
import pytest
import torch

from speechadapt.data.manifest import Utterance
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.adapt.conditions import (
    MixConfig,
    Told,
    WordLists,
    WordsConfig,
    conditions_of,
    mixed,
    tensors_of,
)

SILENCE = np.zeros(10, np.float32)


@pytest.fixture(scope="module")
def encoder(tiny_folder):
    return load_encoder(tiny_folder("whisper"))


def test_words_come_back_from_a_batch_as_they_were_told(encoder):
    told = [Told(SILENCE, words=("view glass", "خلف")), Told(SILENCE), Told(SILENCE, words=("a",))]
    batch = tensors_of(told, "words", encoder)
    assert batch["words"].shape == (3, 2, 10)
    found = conditions_of(batch, "words", encoder, None)
    assert found == {"memory": [("view glass", "خلف"), (), ("a",)]}
    nothing = tensors_of([Told(SILENCE)], "words", encoder)
    assert conditions_of(nothing, "words", encoder, None) == {"memory": [()]}


def test_activity_comes_at_the_encoders_rate_behind_the_hiss(encoder):
    told = [
        Told(SILENCE, track=np.ones(4, np.float32)),
        Told(SILENCE, track=np.ones(2, np.float32)),
    ]
    batch = tensors_of(told, "activity", encoder, start_s=0.02)
    found = conditions_of(batch, "activity", encoder, None)["control"]
    assert [row[:, 0].tolist() for row in found] == [[0, 1, 1], [0, 1, 0]]


def test_a_list_holds_words_said_and_words_unsaid():
    utterances = [Utterance("x", text=text) for text in ("the cat", "the dog", "the bird sings")]
    lists = WordLists(utterances, WordsConfig(distractors=2, said_prob=1.0, common=1))
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        drawn = lists.draw("the cat", random)
        assert "the" not in drawn
        assert "cat" in drawn
        assert 2 <= len(drawn) <= 3
        assert len(set(drawn)) == len(drawn)
        seen |= set(drawn)
    assert seen == {"cat", "dog", "bird", "sings"}
    never = WordLists(utterances, WordsConfig(said_prob=0.0))
    assert all("cat" not in never.draw("cat", random) for _ in range(20))


def test_a_mixture_tells_where_its_target_sounds():
    target, other = np.full(8000, 0.1, np.float32), np.full(8000, 0.1, np.float32)
    config = MixConfig(ratio_db=(3.0, 3.0), offset_s=0.2)
    for seed in range(8):
        mixture, track = mixed(target, other, config, 16000, np.random.default_rng(seed))
        assert 8000 <= len(mixture) <= 8000 + 3200
        assert len(track) == -(-len(mixture) // 160)
        assert 50 <= track.sum() <= 51
        start = int(track.argmax()) * 160
        assert bool(torch.from_numpy(mixture[start : start + 160]).any())
