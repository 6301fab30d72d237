from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from speechadapt.data.audio_cache import AudioCache
from speechadapt.data.manifest import Utterance

ITEMS = [Utterance("low.wav"), Utterance("same.wav")]


def tone(rate: int, hertz: float = 440.0) -> NDArray[np.float32]:
    """Return one second of a tone."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)).astype(np.float32)


def test_other_rates_are_resampled_and_the_own_rate_is_kept() -> None:
    def read(item: Utterance) -> tuple[NDArray[np.float32], int]:
        rate = 8000 if item.audio_filepath == "low.wav" else 16000
        return tone(rate), rate

    cache = AudioCache(ITEMS, read, 16000)
    assert len(cache) == 2
    assert len(cache[0]) == len(cache[1]) == 16000
    # 16-bit rounding is 2**-16 at most; resampling also bends the ends
    np.testing.assert_allclose(cache[1], tone(16000), atol=2**-16)
    np.testing.assert_allclose(cache[0][500:-500], tone(16000)[500:-500], atol=2e-3)


def test_a_recording_is_read_once_and_the_copy_given_out_is_the_callers() -> None:
    asked: list[str] = []

    def read(item: Utterance) -> tuple[NDArray[np.float32], int]:
        asked.append(item.audio_filepath)
        return tone(16000), 16000

    cache = AudioCache(ITEMS, read, 16000)
    first = cache[1]
    first[:] = 0
    assert cache[1].any()
    assert asked == ["same.wav"]


def test_full_scale_does_not_wrap_around() -> None:
    loud = np.array([1.0, -1.0, 1.7, -1.7], dtype=np.float32)
    cache = AudioCache(ITEMS, lambda item: (loud, 16000), 16000)
    assert cache[0].tolist() == [32767 / 32768, -1.0, 32767 / 32768, -1.0]
