from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from speechadapt.bench.clips import Clip, batches_of, bucket_of, read_clips
from tests import synthetic


def clip(name: str, seconds: float) -> Clip:
    return Clip(name, "x", np.zeros(1, np.float32), seconds, "one")


def test_lengths_fall_into_their_range() -> None:
    found = [bucket_of(seconds) for seconds in (0.1, 5.0, 9.99, 10.0, 25.0, 31.0)]
    assert found == ["<5 s", "5-10 s", "5-10 s", "10-20 s", "20-30 s", ">=30 s"]


def test_a_batch_holds_clips_of_one_range_alone() -> None:
    clips = [clip("d", 7.0), clip("a", 1.0), clip("c", 4.9), clip("b", 2.0)]
    named = {
        name: [[one.id for one in batch] for batch in batches]
        for name, batches in batches_of(clips, 2).items()
    }
    assert named == {"<5 s": [["a", "b"], ["c"]], "5-10 s": [["d"]]}


def test_the_shipped_clips_are_there_with_their_texts() -> None:
    clips = read_clips((), Path(), 16000, limit=2)
    assert len(clips) == 2
    assert all(one.text and one.set == "shipped" for one in clips)
    assert clips[0].seconds == pytest.approx(len(clips[0].waveform) / 16000)


def test_sets_of_the_pack_are_spread_and_brought_to_the_rate(tmp_path: Path) -> None:
    synthetic.write_pack(tmp_path, ("tones",), (), ())
    whole = read_clips(("tones/dev",), tmp_path, 16000)
    halved = read_clips(("tones/dev",), tmp_path, 8000, limit=1)
    assert {one.set for one in whole} == {"tones/dev"}
    assert len(halved) == 1
    assert len(halved[0].waveform) == pytest.approx(len(whole[0].waveform) / 2, abs=2)
    assert halved[0].seconds == pytest.approx(whole[0].seconds, abs=1e-3)
