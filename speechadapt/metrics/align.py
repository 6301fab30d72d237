"""Reference and hypothesis one above the other, word under word, with the edits marked."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any


def alignment_lines(reference: str, hypothesis: str) -> tuple[str, str, str]:
    """Lay two normalised texts under each other.

    Args:
        reference: Words separated by spaces; at least one.
        hypothesis: Words separated by spaces; may be empty.

    Returns:
        Three lines of one width: the reference, the hypothesis, and below each word `S` for a
        substitution, `D` for a deletion, `I` for an insertion or nothing. Stars fill the side that
        has no word.
    """
    import jiwer

    said, heard = reference.split(), hypothesis.split()
    output = jiwer.process_words(reference, hypothesis)
    columns = list(_columns(said, heard, output.alignments[0]))
    widths = [max(map(_width, column)) for column in columns]
    first, second, third = (
        " ".join(_pad(column[row], width) for column, width in zip(columns, widths, strict=True))
        for row in range(3)
    )
    return first, second, third


def _columns(
    said: Sequence[str], heard: Sequence[str], alignment: Sequence[Any]
) -> Iterator[tuple[str, str, str]]:
    marks = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}
    for chunk in alignment:
        left = said[chunk.ref_start_idx : chunk.ref_end_idx]
        right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for position in range(max(len(left), len(right))):
            above = left[position] if position < len(left) else ""
            below = right[position] if position < len(right) else ""
            yield above or "*" * _width(below), below or "*" * _width(above), marks[chunk.type]


def _width(text: str) -> int:
    """Return the columns a terminal takes: two for wide characters, none for combining marks."""
    width = 0
    for character in text:
        if unicodedata.category(character) not in ("Mn", "Me"):
            width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return width


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
