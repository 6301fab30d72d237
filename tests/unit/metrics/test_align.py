from __future__ import annotations

from speechadapt.metrics.align import alignment_lines


def test_words_stand_under_each_other_with_their_edits() -> None:
    assert alignment_lines("a dark roast", "the dark one roast") == (
        "a   dark *** roast",
        "the dark one roast",
        "S        I        ",
    )


def test_a_missing_hypothesis_is_all_deletions() -> None:
    assert alignment_lines("stop now", "") == ("stop now", "**** ***", "D    D  ")


def test_wide_characters_and_vowel_signs_keep_the_columns() -> None:
    above, below, marks = alignment_lines("\u4f60\u597d a", "abcd a")
    assert (above, below, marks) == ("\u4f60\u597d a", "abcd a", "S     ")
    above, _, _ = alignment_lines("\u0928\u093f\u0941 a", "xyz a")
    assert above == "\u0928\u093f\u0941  a"
