from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from speechadapt.jobs.recognise import Failure, is_out_of_memory, recognise

CLIPS = [np.full(4, float(n), dtype=np.float32) for n in range(5)]


class Decode:
    """Names each clip; fails on some, or on batches that are too large."""

    def __init__(self, bad: float = -1.0, room: int = 100, error: Exception | None = None) -> None:
        self.bad, self.room, self.error = bad, room, error
        self.sizes: list[int] = []

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        self.sizes.append(len(waveforms))
        if len(waveforms) > self.room:
            raise self.error or RuntimeError("CUDA error: out of memory")
        if any(waveform[0] == self.bad for waveform in waveforms):
            raise ValueError("bad clip\nwith a long story")
        return [str(int(waveform[0])) for waveform in waveforms]


def test_a_good_batch_is_decoded_at_once():
    decode = Decode()
    assert recognise(decode, CLIPS) == ["0", "1", "2", "3", "4"]
    assert decode.sizes == [5]


def test_no_clips_ask_nothing_of_the_model():
    decode = Decode()
    assert recognise(decode, []) == []
    assert decode.sizes == []


def test_one_bad_clip_costs_only_itself():
    found = recognise(Decode(bad=2.0), CLIPS)
    assert found[:2] + found[3:] == ["0", "1", "3", "4"]
    assert found[2] == Failure("MODEL", "ValueError: bad clip")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("HIP out of memory.")])
def test_out_of_memory_halves_until_it_fits(error: Exception):
    decode = Decode(room=2, error=error)
    assert recognise(decode, CLIPS) == ["0", "1", "2", "3", "4"]
    assert decode.sizes == [5, 3, 2, 1, 2]


def test_a_clip_that_fits_nowhere_is_out_of_memory():
    found = recognise(Decode(room=0), CLIPS[:1])
    assert [failure.reason for failure in found] == ["OOM"]


def test_a_model_that_returns_too_little_is_a_failure_of_the_model():
    found = recognise(lambda waveforms: ["only one"][: len(waveforms) - 1], CLIPS[:1])
    assert found[0].reason == "MODEL"
    assert "1 clips gave 0 hypotheses" in found[0].message


def test_torch_names_its_own_error():
    import torch

    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
