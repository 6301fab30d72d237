"""Measured speeds are of the work asked for."""

from __future__ import annotations

import time

import numpy as np
import pytest

from speechadapt.jobs.cost_measure import measure_codec, measure_restorer


class Slow:
    """Takes a hundredth of a second for every second."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def restore(self, waveforms: np.ndarray, sample_rate: int) -> np.ndarray:
        self.lengths.append(len(waveforms))
        time.sleep(0.01 * len(waveforms) / sample_rate)
        return waveforms


def test_a_restorer_is_timed_by_the_second_after_warming_up() -> None:
    restorer = Slow()
    assert measure_restorer(restorer, 5.0) == pytest.approx(0.01, rel=0.9)
    assert restorer.lengths == [16000, 80000, 80000]


def test_a_codec_takes_some_time_both_ways() -> None:
    decode, encode = measure_codec(5.0)
    assert 0.0 < decode < 1.0
    assert 0.0 < encode < 1.0
