"""Seeds are a pure function of their parts."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from speechadapt.core.seed import derive_seed, generator, seed_everything


def test_a_seed_is_the_same_in_every_process() -> None:
    assert derive_seed(1, "noise", 7) == derive_seed(1, "noise", 7) == 3348485594209720388


@pytest.mark.parametrize("other", [(1, "noise", 8), (1, "noise7"), ("1", "noise", 7), (1, "noise")])
def test_other_parts_give_other_seeds(other: tuple[int | str, ...]) -> None:
    assert derive_seed(*other) != derive_seed(1, "noise", 7)


def test_generators_of_equal_parts_draw_alike_and_others_do_not() -> None:
    first, second, other = (generator(3, name).random(8) for name in ("a", "a", "b"))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_seeding_everything_repeats_all_three_streams() -> None:
    def draw() -> tuple[float, float, float]:
        seed_everything(5, "step", 3)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw() == draw()
