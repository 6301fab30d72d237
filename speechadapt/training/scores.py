"""Scores of a recogniser in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from speechadapt.audio.augment import Signal


def corpus_wer(
    sets: Mapping[str, Sequence[tuple[Signal, str]]],
    read: Callable[[list[Signal]], list[str]],
    rows: int = 32,
) -> dict[str, float]:
    """Score a reader on several sets of recordings.

    Args:
        sets: Recordings with reference transcripts, by name.
        read: Transcribes a batch of signals.
        rows: Recordings in a batch; they are sorted by length.

    Returns:
        `wer`, the mean over sets, then each set's word error rate as a fraction.
    """
    import jiwer

    scores: dict[str, float] = {}
    for name, items in sets.items():
        ordered = sorted(items, key=lambda item: len(item[0]))
        texts: list[str] = []
        for start in range(0, len(ordered), rows):
            texts += read([signal for signal, _ in ordered[start : start + rows]])
        scores[name] = float(jiwer.wer([text for _, text in ordered], texts))
    mean = sum(scores.values()) / max(1, len(scores))
    return {"wer": mean} | scores
