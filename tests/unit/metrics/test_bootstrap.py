from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.core.errors import DataError
from speechadapt.metrics import bootstrap
from speechadapt.metrics.bootstrap import bootstrap_difference, bootstrap_ratio

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None)
ITEMS = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 8)), min_size=1, max_size=40)


@given(ITEMS, st.integers(1, 5))
@QUICK
def test_the_interval_contains_the_estimate(items: list[tuple[int, int]], speakers: int) -> None:
    edits, words = [item[0] for item in items], [item[1] for item in items]
    names = [f"speaker {number % speakers}" for number in range(len(items))]
    found = bootstrap_ratio(edits, words, names, resamples=400)
    assert found.estimate == pytest.approx(sum(edits) / sum(words))
    assert found.low - 1e-12 <= found.estimate <= found.high + 1e-12


def test_one_seed_gives_one_interval_and_another_another() -> None:
    random = np.random.default_rng(0)
    edits, words = random.integers(0, 4, 60).tolist(), random.integers(1, 9, 60).tolist()
    assert bootstrap_ratio(edits, words, seed=3) == bootstrap_ratio(edits, words, seed=3)
    first, second = bootstrap_ratio(edits, words, seed=3), bootstrap_ratio(edits, words, seed=4)
    assert (first.low, first.high) != (second.low, second.high)


def test_speakers_that_differ_widen_the_interval() -> None:
    edits = [0] * 50 + [1] * 50
    words = [2] * 100
    names = [f"speaker {number // 10}" for number in range(100)]
    by_item = bootstrap_ratio(edits, words)
    by_speaker = bootstrap_ratio(edits, words, names)
    assert by_speaker.high - by_speaker.low > 2 * (by_item.high - by_item.low)
    assert (by_item.unit, by_item.clusters) == ("item", 100)
    assert (by_speaker.unit, by_speaker.clusters) == ("speaker", 10)


def test_the_interval_matches_the_binomial_for_many_even_items() -> None:
    edits = [1] * 100 + [0] * 300
    found = bootstrap_ratio(edits, [1] * 400, resamples=4000)
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    # Two per cent of an error rate of a quarter: the noise of 4000 drawings, twice over.
    assert found.low == pytest.approx(0.25 - half, abs=0.005)
    assert found.high == pytest.approx(0.25 + half, abs=0.005)


def test_one_speaker_is_drawn_by_item_and_the_description_warns() -> None:
    found = bootstrap_ratio([0, 1, 2], [3, 3, 3], ["ann"] * 3)
    assert (found.unit, found.clusters, found.speakers) == ("item", 3, 1)
    assert "nothing about other speakers" in found.description


def test_a_nameless_item_turns_clusters_off() -> None:
    found = bootstrap_ratio([0, 1, 2], [3, 3, 3], ["ann", None, "zoe"])
    assert (found.unit, found.speakers) == ("item", None)


def test_several_speakers_are_named_in_the_description() -> None:
    found = bootstrap_ratio([0, 1], [3, 3], ["ann", "zoe"])
    assert found.description == "95% bootstrap over 2 speakers"


def test_a_single_item_has_an_interval_of_no_width() -> None:
    found = bootstrap_ratio([1], [4])
    assert (found.low, found.estimate, found.high) == (0.25, 0.25, 0.25)


def test_a_corpus_without_words_has_no_interval() -> None:
    for found in (bootstrap_ratio([], []), bootstrap_ratio([0, 0], [0, 0])):
        assert math.isnan(found.estimate)
        assert math.isnan(found.low)
        assert math.isnan(found.high)


def test_drawing_in_blocks_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    edits, words = list(range(30)), [40] * 30
    whole = bootstrap_ratio(edits, words, resamples=200)
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 7 * 30)
    assert bootstrap_ratio(edits, words, resamples=200) == whole


def test_a_wider_level_gives_a_wider_interval() -> None:
    edits, words = [0, 1, 2, 3] * 10, [4] * 40
    narrow = bootstrap_ratio(edits, words, level=0.5)
    wide = bootstrap_ratio(edits, words, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("edits", "words", "names", "match"),
    [
        ([1], [1, 2], None, "got 1, 2 and 1"),
        ([1], [1], ["a", "b"], "got 1, 1 and 2"),
        ([-1], [1], None, "0 or more"),
        ([float("nan")], [1], None, "finite"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    edits: list[float | int], words: list[float | int], names: list[str] | None, match: str
) -> None:
    with pytest.raises(DataError, match=match):
        bootstrap_ratio(edits, words, names)


def test_a_level_out_of_range_is_refused() -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        bootstrap_ratio([1], [1], level=95.0)


def test_a_difference_is_drawn_in_pairs() -> None:
    random = np.random.default_rng(1)
    words = [4] * 200
    hard = random.integers(0, 4, 200)
    better = np.maximum(hard - (random.random(200) < 0.2), 0)
    found = bootstrap_difference(better.tolist(), hard.tolist(), words)
    assert found.estimate == pytest.approx((better.sum() - hard.sum()) / 800)
    assert found.low < found.estimate < found.high < 0
    alone = bootstrap_ratio(hard.tolist(), words)
    assert found.high - found.low < 0.5 * (alone.high - alone.low)


def test_a_difference_of_equal_results_is_nothing_and_speakers_are_drawn_whole() -> None:
    found = bootstrap_difference([1, 2, 0], [1, 2, 0], [3, 3, 3], ["ann", "ann", "bo"])
    assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)
    assert (found.unit, found.clusters) == ("speaker", 2)
    with pytest.raises(DataError, match="0 or more"):
        bootstrap_difference([-1], [0], [1])
