from __future__ import annotations

import threading

import pytest
import torch

from speechadapt.training.objective import Batch
from speechadapt.training.prefetch import Prefetch


def build(micro: int) -> Batch:
    """Return a batch that says which it is, or fail at the third."""
    if micro == 3:
        raise ValueError("the third batch is bad")
    return {"micro": torch.tensor(micro)}


def test_every_step_gets_its_own_batch_in_any_order() -> None:
    batches = Prefetch(build, end=3)
    assert [int(batches.take(micro)["micro"]) for micro in (0, 1, 0, 2)] == [0, 1, 0, 2]
    batches.close()


def test_an_error_of_building_rises_where_the_batch_is_taken() -> None:
    batches = Prefetch(build, end=5)
    batches.take(2)
    with pytest.raises(ValueError, match="third batch"):
        batches.take(3)
    batches.close()


def test_nothing_past_the_end_is_built_and_no_thread_is_left() -> None:
    asked: list[int] = []

    def note(micro: int) -> Batch:
        asked.append(micro)
        return {}

    before = threading.active_count()
    batches = Prefetch(note, end=2)
    batches.take(0)
    batches.take(1)
    batches.close()
    assert asked == [0, 1]
    assert threading.active_count() == before
