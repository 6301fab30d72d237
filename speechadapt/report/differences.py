"""Where a hypothesis differs from its reference, as steps that a page can colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from speechadapt.text.normalise import load_normaliser

Step = tuple[str, ...]
"""`("=", text)`, `("S", reference, hypothesis)`, `("D", reference)` or `("I", hypothesis)`."""

_MARKS = {"equal": "=", "substitute": "S", "delete": "D", "insert": "I"}


def text_differences(
    references: Sequence[str],
    hypotheses: Sequence[str],
    languages: Sequence[str | None],
    normaliser: str,
) -> list[list[Step]]:
    """Align texts word by word, or character by character where the language has no spaces.

    Args:
        references: Normalised, none of them empty.
        hypotheses: Normalised; empty where nothing was recognised.
        languages: BCP 47 codes; None where unknown.
        normaliser: The normaliser's name, which says what a language counts by.

    Returns:
        The steps of each text; equal neighbours stand in one step.
    """
    import jiwer

    if not references:
        return []
    joints, said, heard = [], [], []
    for reference, hypothesis, language in zip(references, hypotheses, languages, strict=True):
        normalise = load_normaliser(normaliser, language)
        by_character = normalise.headline == "cer"
        joints.append("" if by_character else " ")
        said.append(_units(normalise.characters(reference) if by_character else reference.split()))
        heard.append(
            _units(normalise.characters(hypothesis) if by_character else hypothesis.split())
        )
    alignments = jiwer.process_words(
        [" ".join(units) for units in said], [" ".join(units) for units in heard]
    ).alignments
    rows = zip(said, heard, alignments, joints, strict=True)
    return [list(_steps(left, right, chunks, joint)) for left, right, chunks, joint in rows]


def _units(parts: Sequence[str]) -> list[str]:
    return [part for part in parts if part.strip()]


def _steps(
    said: Sequence[str], heard: Sequence[str], chunks: Sequence[Any], joint: str
) -> Iterator[Step]:
    for chunk in chunks:
        left = said[chunk.ref_start_idx : chunk.ref_end_idx]
        right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        mark = _MARKS[chunk.type]
        if mark != "S":
            yield mark, joint.join(right if mark == "I" else left)
        elif joint:
            yield from ((mark, *pair) for pair in zip(left, right, strict=True))
        else:
            yield mark, joint.join(left), joint.join(right)
