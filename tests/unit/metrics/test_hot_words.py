from __future__ import annotations

import math

from speechadapt.metrics.hot_words import score_hot_words


def test_counts_by_hand():
    rows = [
        ("call view glass now", "call view glass now", ["view glass", "alexa"]),
        ("call jarvis", "call alexa alexa", ["jarvis", "alexa"]),
        ("jarvis jarvis", "jarvis", ["jarvis", "jarvis"]),
    ]
    score = score_hot_words(rows)
    assert (score.items, score.said, score.found, score.inserted) == (3, 4, 2, 2)
    assert score.recall == 0.5
    assert score.inserted_per_item == 2 / 3


def test_words_of_a_phrase_count_in_their_order_alone():
    assert score_hot_words([("glass view", "view glass", ["view glass"])]).inserted == 1


def test_nothing_listed_has_no_recall():
    score = score_hot_words([("one", "one", [])])
    assert math.isnan(score.recall)
    assert score.inserted_per_item == 0.0
    assert math.isnan(score_hot_words([]).inserted_per_item)
