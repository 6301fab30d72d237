"""Word times from cross-attention: where the alignment heads look while each token is written.

The attention weights of the heads are standardised over the tokens, smoothed by a median over
frames and averaged; the cheapest monotone path through the negated map (dynamic time warping) says
at which frame each token begins.

Source: openai-whisper, `timing.py` (the method and its constants; not its code).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.base import Word
from speechadapt.decoders.whisper_ar.generate import Generator
from speechadapt.decoders.whisper_ar.tokens import Vocabulary
from speechadapt.decoders.whisper_ar.words import group_words

_MEDIAN_WIDTH = 7


def align(
    generator: Generator,
    frames: Frames,
    lengths: Lengths,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    heads: Sequence[tuple[int, int]],
    languages: Sequence[str | None],
    frame_rate: float,
) -> list[tuple[Word, ...]]:
    """Place the words of a batch in time.

    Args:
        generator: Runs the decoder.
        frames: Encoder frames.
        lengths: Frames of each clip's own audio; times end there.
        prompts: Start tokens of each clip, `<|notimestamps|>` among them.
        texts: Text tokens of each clip.
        heads: Layer and head of each alignment head.
        languages: Language of each clip, which decides what a word is.
        frame_rate: Frames per second.

    Returns:
        The words of each clip; none where it has no text.
    """
    vocabulary = generator.vocabulary
    size = max(len(prompt) + len(text) for prompt, text in zip(prompts, texts, strict=True)) + 1
    rows = [
        [*prompt, *text] + [vocabulary.end] * (size - len(prompt) - len(text))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    tokens = torch.tensor(rows, device=frames.device)
    with _kept_scores(generator.network, heads) as kept:
        logits = generator.forward(frames, lengths, tokens)
    results: list[tuple[Word, ...]] = []
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        if not text:
            results.append(())
            continue
        # The row of a token is where the network looks while it writes the next one.
        begin, end = len(prompt) - 1, len(prompt) + len(text)
        scores = torch.stack([kept[head][row, : end + 1, : int(lengths[row])] for head in heads])
        starts = token_starts(scores, begin, end) / frame_rate
        chances = logits[row, begin : end - 1].softmax(-1)
        chosen = torch.tensor(list(text), device=chances.device)
        probabilities = chances.gather(-1, chosen[:, None])[:, 0]
        results.append(_words(vocabulary, text, starts, probabilities.tolist(), languages[row]))
    return results


def token_starts(
    scores: Float[Tensor, "heads tokens frames"], begin: int, end: int
) -> Float[np.ndarray, " starts"]:
    """Return the frame at which each token from `begin` to `end` starts.

    Args:
        scores: Attention before the softmax, over a clip's own frames.
        begin: First row of interest; all rows take part in the standardising.
        end: The row after the last of interest.
    """
    weights = scores.float().softmax(-1)
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    weights = median_filter((weights - mean) / deviation.clamp(min=1e-8), _MEDIAN_WIDTH)
    matrix = weights.mean(0)[begin:end].cpu().numpy()
    token_path, frame_path = dynamic_time_warping(-matrix.astype(np.float64))
    begins = np.diff(token_path, prepend=-1) > 0
    return frame_path[begins].astype(np.float64)


def median_filter(
    values: Float[Tensor, "*axes frames"], width: int
) -> Float[Tensor, "*axes frames"]:
    """Take the median over `width` frames around each frame, edges mirrored.

    Args:
        values: Anything with frames last.
        width: Odd number of frames; a signal no longer than half of it is returned as it is.
    """
    side = width // 2
    if values.shape[-1] <= side:
        return values
    flat = values.reshape(1, -1, values.shape[-1])
    padded = nn.functional.pad(flat, (side, side), mode="reflect")
    return padded.unfold(-1, width, 1).median(-1).values.reshape(values.shape)


def dynamic_time_warping(
    costs: Float[np.ndarray, "rows columns"],
) -> tuple[Int[np.ndarray, " steps"], Int[np.ndarray, " steps"]]:
    """Return the cheapest path from the first to the last cell, by rows and columns.

    A step goes one row on, one column on, or both. Whole anti-diagonals are computed at once.

    Args:
        costs: Cost of each cell.
    """
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        before = np.minimum(total[row - 1, column], total[row, column - 1])
        before = np.minimum(before, total[row - 1, column - 1])
        total[row, column] = costs[row - 1, column - 1] + before
    path = [(rows, columns)]
    while path[-1] != (1, 1):
        row, column = path[-1]
        steps = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
        path.append(min(steps, key=lambda cell: total[cell]))
    pairs = np.array(path[::-1], dtype=np.int64) - 1
    return pairs[:, 0], pairs[:, 1]


@contextmanager
def _kept_scores(
    network: Any, heads: Sequence[tuple[int, int]]
) -> Iterator[dict[tuple[int, int], Tensor]]:
    """Keep what the given heads compute before their softmax during one forward pass."""
    kept: dict[tuple[int, int], Tensor] = {}
    handles = []

    def watch(layer: int) -> Any:
        def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            queries = module.q_proj(states) * module.scaling
            keys = module.k_proj(kwargs["key_value_states"])
            for head in (head for at, head in heads if at == layer):
                span = slice(head * module.head_dim, (head + 1) * module.head_dim)
                kept[layer, head] = queries[..., span] @ keys[..., span].transpose(1, 2)

        return keep

    for layer in sorted({layer for layer, _ in heads}):
        module = network.model.decoder.layers[layer].encoder_attn
        handles.append(module.register_forward_pre_hook(watch(layer), with_kwargs=True))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _words(
    vocabulary: Vocabulary,
    text: Sequence[int],
    starts: Float[np.ndarray, " starts"],
    probabilities: Sequence[float],
    language: str | None,
) -> tuple[Word, ...]:
    """Group tokens into words; a word ends where the token after it begins."""
    words, at = [], 0
    for spelling, count in group_words(vocabulary, text, language):
        chances = probabilities[at : at + count]
        words.append(
            Word(
                text=spelling.strip(),
                start=float(starts[at]),
                end=float(starts[at + count]),
                probability=sum(chances) / count,
            )
        )
        at += count
    return tuple(word for word in words if word.text)
