from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.audio.span import Span
from speechadapt.core.errors import DataError
from speechadapt.metrics.coverage import measure_coverage, merge_spans

# Quarter seconds are exact in binary, so sums need no tolerance.
SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(
        lambda pair: Span(pair[0] / 4, (pair[0] + pair[1]) / 4)
    )
)


def test_speech_without_text_is_counted_and_listed() -> None:
    found = measure_coverage(
        [Span(1.0, 4.0), Span(6.0, 9.0)], [Span(1.0, 3.0)], margin_s=0.0, min_gap_s=0.5
    )
    assert (found.speech_s, found.covered_s) == (6.0, 2.0)
    assert found.uncovered == (Span(3.0, 4.0), Span(6.0, 9.0))
    assert found.share == pytest.approx(1 / 3)
    assert found.longest_gap_s == 3.0


def test_the_margin_covers_what_word_times_miss_at_the_edges() -> None:
    found = measure_coverage([Span(1.0, 2.0)], [Span(1.15, 1.9)])
    assert found.share == 1.0
    assert found.uncovered == ()


def test_a_short_gap_is_counted_and_not_listed() -> None:
    found = measure_coverage([Span(0.0, 2.0)], [Span(0.0, 1.75)], margin_s=0.0, min_gap_s=0.5)
    assert (found.covered_s, found.uncovered) == (1.75, ())


def test_text_without_speech_covers_nothing() -> None:
    found = measure_coverage([], [Span(0.0, 5.0)])
    assert (found.speech_s, found.covered_s, found.share) == (0.0, 0.0, 1.0)


def test_a_gap_between_two_texts_is_found() -> None:
    found = measure_coverage([Span(0.0, 10.0)], [Span(0.0, 3.0), Span(5.0, 10.0)], margin_s=0.0)
    assert found.uncovered == (Span(3.0, 5.0),)


@given(SPANS, SPANS)
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_covered_and_uncovered_make_up_the_speech(speech: list[Span], text: list[Span]) -> None:
    found = measure_coverage(speech, text, margin_s=0.0, min_gap_s=0.0)
    assert found.covered_s + sum(span.duration_s for span in found.uncovered) == found.speech_s
    again = measure_coverage(speech, [*text, *found.uncovered], margin_s=0.0, min_gap_s=0.0)
    assert again.covered_s == again.speech_s


def test_spans_that_touch_are_joined() -> None:
    spans = [Span(2.0, 3.0), Span(0.0, 1.0), Span(1.0, 1.5), Span(2.5, 2.75)]
    assert merge_spans(spans) == [Span(0.0, 1.5), Span(2.0, 3.0)]


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(DataError, match=r"got 3\.0 to 2\.0 s"):
        merge_spans([Span(3.0, 2.0)])
