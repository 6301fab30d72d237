"""Where the labels of a CTC transcript lie in time, and which targets fit into their frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from speechadapt.core.errors import ShapeError
from speechadapt.core.shapes import Lengths
from speechadapt.decoders.base import Word
from speechadapt.text.alphabet import Alphabet


def frames_needed(labels: Sequence[int]) -> int:
    """Count the frames a label sequence takes at least.

    One frame per label, and one blank between two equal labels that follow one another.
    """
    return len(labels) + sum(first == second for first, second in pairwise(labels))


def alignable(lengths: Lengths, targets: Sequence[Sequence[int]]) -> Bool[Tensor, " batch"]:
    """Tell which items have enough frames for their labels.

    CTC gives the others probability zero, so their loss is infinite and nothing is learned from
    them; count them and say so.

    Args:
        lengths: Valid frames per item.
        targets: Label ids per item, without blanks.

    Returns:
        True where the item's frames hold its labels and a blank between each repeated pair.

    Raises:
        ShapeError: The number of targets is not the number of lengths.
    """
    if len(targets) != lengths.shape[0]:
        raise ShapeError(f"{lengths.shape[0]} lengths need as many targets, got {len(targets)}.")
    needed = torch.tensor(
        [frames_needed(labels) for labels in targets], dtype=lengths.dtype, device=lengths.device
    )
    return lengths >= needed


def align_words(
    log_probs: Float[Tensor, "frames symbols"],
    labels: Sequence[int],
    alphabet: Alphabet,
    frame_rate: float,
) -> tuple[Word, ...]:
    """Place the words of a transcript on the most probable path of its labels.

    A word lasts from the first frame of its first letter to the last frame of its last one; CTC
    models emit short spikes, so this is rather too short than too long. Its probability is the mean
    over its letters of the mean probability of the letter's frames.

    Args:
        log_probs: Log-probabilities of the valid frames.
        labels: Label ids without blanks, as many as the frames can hold.
        alphabet: Tells letters from word delimiters.
        frame_rate: Frames per second.

    Returns:
        The words in order; empty where there are no labels.

    Source: Viterbi alignment by `torchaudio.functional.forced_align`.
    """
    if not labels:
        return ()
    from torchaudio.functional import forced_align

    path, scores = forced_align(
        log_probs[None].cpu().float(), torch.tensor([list(labels)]), blank=alphabet.blank_id
    )
    spans = _spans(path[0].tolist(), scores[0].exp().tolist(), alphabet.blank_id)
    words: list[Word] = []
    letters: list[tuple[int, int, int, float]] = []
    for span in [*spans, (alphabet.delimiter_id, 0, 0, 0.0)]:
        if span[0] != alphabet.delimiter_id:
            letters.append(span)
        elif letters:
            words.append(_word(letters, alphabet, frame_rate))
            letters = []
    return tuple(words)


def _spans(
    path: Sequence[int], scores: Sequence[float], blank: int
) -> list[tuple[int, int, int, float]]:
    """Return `(label, first frame, frame after the last, mean probability)` of each label."""
    spans: list[tuple[int, int, int, float]] = []
    start = 0
    for frame in range(1, len(path) + 1):
        if frame == len(path) or path[frame] != path[start]:
            if path[start] != blank:
                mean = sum(scores[start:frame]) / (frame - start)
                spans.append((path[start], start, frame, mean))
            start = frame
    return spans


def _word(
    letters: Sequence[tuple[int, int, int, float]], alphabet: Alphabet, frame_rate: float
) -> Word:
    return Word(
        text=alphabet.decode([letter[0] for letter in letters], collapse=False),
        start=letters[0][1] / frame_rate,
        end=letters[-1][2] / frame_rate,
        probability=sum(letter[3] for letter in letters) / len(letters),
    )
