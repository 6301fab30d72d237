from __future__ import annotations

import pytest

from speechadapt.decoders.base import compression_ratio


def test_repetition_raises_the_compression_ratio():
    assert compression_ratio("na " * 100) > 10
    assert compression_ratio("a plain sentence") < 1.5


def test_the_empty_text_has_ratio_one():
    assert compression_ratio("") == 1.0


def test_the_ratio_counts_bytes():
    import zlib

    text = "größe " * 5
    data = text.encode()
    assert compression_ratio(text) == pytest.approx(len(data) / len(zlib.compress(data)))
