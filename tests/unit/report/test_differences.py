from __future__ import annotations

from speechadapt.report.differences import text_differences


def test_steps_name_what_was_kept_swapped_left_out_and_added():
    steps = text_differences(
        ["one two three four", "five six"],
        ["one tow three", "five and six"],
        [None, None],
        "verbatim",
    )
    assert steps == [
        [("=", "one"), ("S", "two", "tow"), ("=", "three"), ("D", "four")],
        [("=", "five"), ("I", "and"), ("=", "six")],
    ]


def test_words_next_to_one_another_are_swapped_one_by_one():
    steps = text_differences(["a b c"], ["a x y"], [None], "verbatim")
    assert steps == [[("=", "a"), ("S", "b", "x"), ("S", "c", "y")]]


def test_a_missing_hypothesis_is_one_deletion():
    assert text_differences(["one two"], [""], [None], "verbatim") == [[("D", "one two")]]


def test_a_language_without_spaces_is_compared_by_character():
    assert text_differences(["你好吗"], ["你坏 吗"], ["zh"], "verbatim") == [
        [("=", "你"), ("S", "好", "坏"), ("=", "吗")]
    ]


def test_no_text_is_no_work():
    assert text_differences([], [], [], "verbatim") == []
