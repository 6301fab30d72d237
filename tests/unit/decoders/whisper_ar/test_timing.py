from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from speechadapt.decoders.whisper_ar.timing import (
    dynamic_time_warping,
    median_filter,
    token_starts,
)


def cheapest_by_brute_force(costs: np.ndarray) -> float:
    rows, columns = costs.shape

    def paths(row: int, column: int):
        if (row, column) == (rows - 1, columns - 1):
            yield costs[row, column]
            return
        for down, right in ((1, 0), (0, 1), (1, 1)):
            if row + down < rows and column + right < columns:
                for rest in paths(row + down, column + right):
                    yield costs[row, column] + rest

    return min(paths(0, 0))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 4), (4, 4), (5, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_path_is_monotone_and_none_is_cheaper(shape, seed):
    costs = np.random.default_rng(seed).normal(size=shape)
    rows, columns = dynamic_time_warping(costs)
    assert (rows[0], columns[0]) == (0, 0)
    assert (rows[-1], columns[-1]) == (shape[0] - 1, shape[1] - 1)
    for before, after in itertools.pairwise(zip(rows, columns, strict=True)):
        step = (after[0] - before[0], after[1] - before[1])
        assert step in {(1, 0), (0, 1), (1, 1)}
    assert costs[rows, columns].sum() == pytest.approx(cheapest_by_brute_force(costs))


def test_median_filter_takes_the_middle_of_each_window_with_mirrored_edges():
    values = torch.tensor([[5.0, 1.0, 9.0, 2.0, 8.0, 3.0]])
    padded = [9.0, 1.0, 5.0, 1.0, 9.0, 2.0, 8.0, 3.0, 8.0, 2.0]
    expected = [sorted(padded[at : at + 5])[2] for at in range(6)]
    assert median_filter(values, 5)[0].tolist() == expected


def test_a_signal_shorter_than_half_a_window_is_left_alone():
    values = torch.tensor([[[3.0, 1.0, 2.0]]])
    assert torch.equal(median_filter(values, 7), values)


def test_tokens_start_where_the_heads_begin_to_look():
    # Four rows: one of the prompt, three of interest, each looking at its own third of 30 frames.
    scores = torch.full((2, 4, 30), -4.0)
    scores[:, 0] = 0.0
    for token in range(3):
        scores[:, token + 1, token * 10 : token * 10 + 10] = 4.0
    assert token_starts(scores, 1, 4).tolist() == [0.0, 10.0, 20.0]
