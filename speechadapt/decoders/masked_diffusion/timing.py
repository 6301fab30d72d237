"""Word times of a finished text, by where cross-attention looks while each token is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from speechadapt.decoders.base import Word
from speechadapt.decoders.masked_diffusion.network import Condition, DiffusionNetwork
from speechadapt.decoders.masked_diffusion.selection import Written
from speechadapt.decoders.masked_diffusion.vocabulary import Vocabulary
from speechadapt.decoders.whisper_ar.timing import token_starts


def place_words(
    network: DiffusionNetwork,
    vocabulary: Vocabulary,
    words: Sequence[Written],
    condition: Condition,
    frame_rate: float,
) -> tuple[Word, ...]:
    """Place the words of one utterance in time.

    A word begins where its first token does and ends where the token after it begins.

    Args:
        network: In evaluation mode, hearing.
        vocabulary: Its tokens.
        words: The text.
        condition: What was heard of that utterance alone.
        frame_rate: Frames per second.
    """
    text = [token for word in words for token in word.tokens]
    room = network.shape.positions - 2
    if not text or room < 1:
        return ()
    row = [vocabulary.start_id, *text[:room], vocabulary.pad_id]
    frames = int(condition.mask[0].sum())
    scores = network.attention_scores(torch.tensor(row, device=condition.mask.device), condition)
    starts = token_starts(scores[:, :, :frames], 1, len(row)).tolist()
    starts += [float(frames)] * (len(text) + 1 - len(starts))
    placed, at = [], 0
    for word in words:
        after = at + len(word.tokens)
        placed.append(
            Word(word.text, starts[at] / frame_rate, starts[after] / frame_rate, word.probability)
        )
        at = after
    return tuple(placed)
