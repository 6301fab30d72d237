"""Pieces of features and samples that stand for one another."""

from __future__ import annotations

import numpy as np
import torch

from speechadapt.core.seed import generator
from speechadapt.training.restoration.crops import choose_start, cut_frames, cut_signal


def test_pieces_of_frames_and_samples_start_together() -> None:
    signal = np.arange(40, dtype=np.float32)
    frames = torch.arange(10.0)[None, :, None]
    piece = cut_frames(frames, torch.tensor([3]), 4)
    assert piece[0, :, 0].tolist() == [3, 4, 5, 6]
    assert cut_signal(signal, 3, 4, 4).tolist() == list(range(12, 28))


def test_a_short_row_is_filled_up() -> None:
    frames = torch.arange(2.0)[None, :, None]
    assert cut_frames(frames, torch.tensor([1]), 3)[0, :, 0].tolist() == [1, 1, 1]
    assert cut_signal(np.ones(6, dtype=np.float32), 1, 3, 4).tolist() == [1, 1] + [0] * 10


def test_pieces_lie_inside_and_prefer_sound() -> None:
    signal = np.zeros(4000, dtype=np.float32)
    signal[2000:] = 1.0
    starts = [choose_start(signal, 5, 40, generator(seed)) for seed in range(40)]
    assert all(0 <= start <= 95 for start in starts)
    assert sum(start >= 45 for start in starts) > 30
    assert choose_start(signal[:50], 5, 40, generator(0)) == 0
    assert starts == [choose_start(signal, 5, 40, generator(seed)) for seed in range(40)]
