from __future__ import annotations

import numpy as np
import pytest

from speechadapt.audio.augment import Signal
from speechadapt.training.scores import corpus_wer


def test_every_set_counts_alike_and_batches_are_sorted_by_length() -> None:
    texts = {3: "one", 5: "two three", 4: "four", 6: "six"}
    asked: list[list[int]] = []

    def read(signals: list[Signal]) -> list[str]:
        asked.append([len(signal) for signal in signals])
        return ["" if len(signal) == 5 else texts[len(signal)] for signal in signals]

    def items(*lengths: int) -> list[tuple[Signal, str]]:
        return [(np.zeros(length, dtype=np.float32), texts[length]) for length in lengths]

    scores = corpus_wer({"good": items(4, 6), "half": items(5, 3, 4)}, read, rows=2)
    assert scores == pytest.approx({"wer": 0.25, "good": 0.0, "half": 0.5})
    assert asked == [[4, 6], [3, 4], [5]]
