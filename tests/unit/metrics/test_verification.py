"""Equal error rates, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from speechadapt.core.errors import DataError
from speechadapt.metrics.verification import equal_error_rate, verify


def test_the_rate_is_where_both_errors_are_as_frequent() -> None:
    # at 0.5 one pair of four is missed and one of four passes
    found = equal_error_rate([0.9, 0.8, 0.7, 0.3], [0.5, 0.2, 0.1, 0.0])
    assert (found.rate, found.threshold) == (0.25, 0.5)
    assert (found.same, found.different) == (4, 4)


def test_told_apart_is_zero_and_turned_round_is_one() -> None:
    assert equal_error_rate([0.9, 0.8], [0.1, 0.2, 0.3]).rate == 0.0
    assert equal_error_rate([0.1, 0.2], [0.8, 0.9]).rate == 1.0
    random = np.random.default_rng(0)
    chance = equal_error_rate(random.random(4000), random.random(4000)).rate
    assert chance == pytest.approx(0.5, abs=0.03)


def test_one_kind_alone_has_no_rate() -> None:
    with pytest.raises(DataError, match="of 2 pairs of one speaker and 0 of two"):
        equal_error_rate([0.1, 0.2], [])


def test_every_pair_counts_once_and_none_with_itself() -> None:
    angles = np.array([0.0, 0.1, 1.5, 1.6])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = verify(vectors, ["a", "a", "b", "b"], resamples=0)
    assert (found.same, found.different, found.rate) == (2, 4, 0.0)
    assert (found.low, found.high) == (None, None)
    assert np.cos(1.4) <= found.threshold <= np.cos(0.1) + 1e-12


def test_recordings_heard_otherwise_are_paired_with_the_others() -> None:
    angles = np.array([0.0, 0.1, 1.5, 1.6])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # heard otherwise, every voice sounds like the other one
    found = verify(vectors, ["a", "a", "b", "b"], vectors[::-1], resamples=0)
    assert (found.same, found.different) == (4, 8)
    assert found.rate == 1.0


def test_the_interval_holds_the_rate_and_knows_few_speakers() -> None:
    random = np.random.default_rng(0)

    def interval(voices: int) -> tuple[float, float, float]:
        centres = random.standard_normal((voices, 6))
        vectors = np.repeat(centres, 6, axis=0) + 1.2 * random.standard_normal((6 * voices, 6))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found = verify(vectors, [str(n // 6) for n in range(6 * voices)], resamples=60)
        assert found.low is not None
        assert found.high is not None
        return found.low, found.rate, found.high

    few, many = interval(4), interval(24)
    for low, rate, high in (few, many):
        assert low <= rate + 0.02
        assert rate <= high + 0.02
    assert few[2] - few[0] > many[2] - many[0]
