from __future__ import annotations

import numpy as np
import pytest

from speechadapt.core.errors import DataError
from speechadapt.metrics.macro import TaskEdits, averaged, macro_rate, macro_relative


def task(edits: list[float], units: int = 10, speakers: str = "") -> TaskEdits:
    names = tuple(speakers) or (None,) * len(edits)
    return TaskEdits(tuple(edits), (units,) * len(edits), names)


def test_every_task_counts_alike_whatever_its_size() -> None:
    small, large = task([5, 5]), task([0] * 98)
    found = macro_rate([small, large])
    assert found.estimate == pytest.approx(0.25)
    assert found.low == found.high == pytest.approx(0.25)  # no item differs from another


def test_an_interval_widens_with_the_spread_of_the_items() -> None:
    even, uneven = macro_rate([task([2] * 20)]), macro_rate([task([0] * 10 + [4] * 10)])
    assert even.estimate == uneven.estimate == pytest.approx(0.2)
    assert even.high - even.low == pytest.approx(0)
    assert uneven.low < 0.15 < 0.25 < uneven.high


def test_systems_are_compared_on_the_same_draws() -> None:
    random = np.random.default_rng(0)
    hard = random.integers(1, 10, 40).tolist()
    one, other = [task(hard)], [task([2 * edits for edits in hard])]
    found = macro_relative(one, other)
    assert found.estimate == found.low == pytest.approx(-0.5)
    assert found.high == pytest.approx(-0.5)
    alone = macro_rate(one)
    assert alone.high - alone.low > 0.05  # each by itself is not certain at all


def test_whole_speakers_are_drawn() -> None:
    edits = [0.0] * 10 + [5.0] * 10
    by_speaker = macro_rate([task(edits, speakers="a" * 10 + "b" * 10)])
    by_item = macro_rate([task(edits)])
    assert (by_speaker.low, by_speaker.high) == (0.0, 0.5)
    assert by_item.low > 0.1


def test_seeds_are_averaged_item_by_item() -> None:
    first, second = task([0, 4], speakers="ab"), task([2, 0], speakers="ab")
    assert averaged([[first], [second]]) == [task([1, 2], speakers="ab")]
    assert averaged([[first]]) == [first]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="scored on other items"):
        macro_relative([task([1])], [task([1], units=9)])
    with pytest.raises(DataError, match="needs tasks, each with reference units"):
        macro_rate([])
    with pytest.raises(DataError, match="needs tasks, each with reference units"):
        macro_rate([task([1], units=0)])
