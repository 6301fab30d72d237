"""Decoded training audio kept in memory as 16-bit samples, decoded on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from speechadapt.data.manifest import Utterance

Reader = Callable[[Utterance], tuple[NDArray[np.float32], int]]


class AudioCache:
    """Samples of utterances at one rate.

    Args:
        utterances: What can be asked for.
        read: Gives an utterance's mono samples and their rate in Hz.
        sample_rate: Hz of the samples given out; others are resampled.
    """

    def __init__(self, utterances: Sequence[Utterance], read: Reader, sample_rate: int) -> None:
        self._utterances = list(utterances)
        self._read = read
        self._sample_rate = sample_rate
        self._samples: dict[int, NDArray[np.int16]] = {}

    def __len__(self) -> int:
        return len(self._utterances)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        if index not in self._samples:
            samples, rate = self._read(self._utterances[index])
            if rate != self._sample_rate:
                import soxr

                samples = soxr.resample(samples, rate, self._sample_rate)
            scaled = np.clip(np.round(samples * 32768.0), -32768, 32767)
            self._samples[index] = scaled.astype(np.int16)
        return self._samples[index].astype(np.float32) / np.float32(32768.0)
