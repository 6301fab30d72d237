from __future__ import annotations

import pytest

from speechadapt.audio.span import Span, overlap_s, pad_span, total_s


def test_total_is_the_sum_of_lengths() -> None:
    assert total_s([Span(0.5, 1.0), Span(2.0, 5.0)]) == pytest.approx(3.5)
    assert total_s([]) == 0.0


def test_padding_stays_inside_the_recording() -> None:
    assert pad_span(Span(0.1, 4.9), 0.25, 5.0) == Span(0.0, 5.0)
    assert pad_span(Span(1.0, 2.0), 0.25, 5.0) == Span(0.75, 2.25)


def test_overlap_counts_only_what_both_cover() -> None:
    others = [Span(0.0, 1.0), Span(2.0, 3.0), Span(9.0, 10.0)]
    assert overlap_s(Span(0.5, 2.25), others) == pytest.approx(0.75)
    assert overlap_s(Span(3.0, 9.0), others) == 0.0
