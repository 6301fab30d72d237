from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

from speechadapt.report.histogram import histogram_svg, make_histogram


def test_every_value_is_in_the_bin_that_holds_it():
    histogram = make_histogram([0.0, 0.1, 0.26, 0.5, 1.0])
    assert histogram is not None
    assert histogram.width == 0.05
    assert [place for place, count in enumerate(histogram.counts) if count] == [0, 2, 5, 10, 20]
    assert histogram.median == 0.26
    assert not histogram.beyond


def test_a_long_tail_is_one_last_bin():
    histogram = make_histogram([0.1] * 995 + [50.0] * 5)
    assert histogram is not None
    assert histogram.beyond
    assert histogram.counts[-1] == 5
    assert sum(histogram.counts) == histogram.total == 1000


def test_values_that_are_no_numbers_are_left_out():
    assert make_histogram([math.nan, math.inf]) is None
    assert make_histogram([0.0, 0.0, math.nan]).counts == (2,)


def test_the_drawing_is_well_formed_and_says_what_it_shows():
    histogram = make_histogram([0.1, 0.2, 0.9])
    drawing = histogram_svg(histogram, "WER <of> a file", "%", 100.0).partition("<p>")[0]
    root = ElementTree.fromstring(drawing)
    assert root.get("aria-label") == "WER <of> a file: 3 values, median 20 %, 95 % up to 90 %"
    names = [title.text for title in root.iter("title")]
    assert names[2] == "10 to 15 %: 1"
    assert sum(int(name.rpartition(": ")[2]) for name in names) == 3
