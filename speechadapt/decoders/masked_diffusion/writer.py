"""Writing the candidates of a batch: audio in once, then the steps of a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.masked_diffusion.canvas import (
    Canvas,
    Chosen,
    Marks,
    Texts,
    choose,
)
from speechadapt.decoders.masked_diffusion.length import length_quantile
from speechadapt.decoders.masked_diffusion.network import Condition, DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.selection import Candidate, Written
from speechadapt.decoders.masked_diffusion.strategies import fill
from speechadapt.decoders.masked_diffusion.vocabulary import Vocabulary
from speechadapt.engines.reuse import Share

_PLACES_AT_ONCE = 4096  # logits of so many places are in memory together


@dataclass(frozen=True)
class Draft:
    """What was written for one utterance.

    Args:
        candidates: Its texts.
        positions: Positions computed, the start token included.
        passes: How often the network was asked.
        empty_prob: Probability of no token by the length head; None where there is none.
    """

    candidates: tuple[Candidate, ...]
    positions: int
    passes: int
    empty_prob: float | None


class Predictor:
    """The network as a strategy sees it: keys and values of the audio are computed beforehand.

    Args:
        network: In evaluation mode.
        condition: What was heard of each utterance; None for text alone.
        lengths: Positions of each utterance.
        forbidden: Tokens that are never written.
    """

    def __init__(
        self,
        network: DiffusionNetwork,
        condition: Condition | None,
        lengths: Sequence[int],
        forbidden: Sequence[int] = (),
    ) -> None:
        self.network = network
        self.lengths = list(lengths)
        device = network.head.weight.device
        self._forbidden = torch.tensor(list(forbidden), dtype=torch.long, device=device)
        self._whole = condition
        self._part: tuple[tuple[int, ...], Condition | None] = (
            tuple(range(len(self.lengths))),
            condition,
        )

    def __call__(
        self,
        rows: Sequence[int],
        tokens: Texts,
        hidden: Marks,
        temperature: float,
        random: Float[Tensor, " places"] | None,
    ) -> Chosen:
        """Choose tokens for the hidden places; see `canvas.Predict`."""
        width = max(self.lengths[row] for row in rows)
        lengths = torch.tensor([self.lengths[row] for row in rows], device=tokens.device)
        states = self.network(tokens[..., :width], lengths, self._condition(tuple(rows)))
        wanted = states[hidden[..., :width]]
        chosen: list[Chosen] = []
        for start in range(0, max(1, len(wanted)), _PLACES_AT_ONCE):
            part = slice(start, start + _PLACES_AT_ONCE)
            logits = self.network.head(wanted[part]).float()
            logits = logits.index_fill(1, self._forbidden, -torch.inf)
            chosen.append(choose(logits, temperature, None if random is None else random[part]))
        return torch.cat([one for one, _ in chosen]), torch.cat([one for _, one in chosen])

    def _condition(self, rows: tuple[int, ...]) -> Condition | None:
        if self._part[0] != rows:
            whole = self._whole
            self._part = (rows, None if whole is None else whole.select(rows))
        return self._part[1]


def write(
    network: DiffusionNetwork,
    vocabulary: Vocabulary,
    frames: Frames,
    lengths: Lengths,
    options: DiffusionOptions,
    share: Share | None = None,
) -> tuple[list[Draft], Condition]:
    """Write the candidates of a batch of utterances.

    What is random about an utterance is a function of the seed and of its number of frames.

    Args:
        network: In evaluation mode.
        vocabulary: Its tokens.
        frames: Encoder frames.
        lengths: Valid frames per row, at least one each.
        options: How to write.
        share: Processes that compute the steps with one another; see `strategies.fill`.

    Returns:
        The draft of each utterance, and what was heard.
    """
    condition = network.condition(frames, lengths)
    positions, empty = _positions(network, frames, lengths, options)
    canvas = Canvas(
        positions,
        options.candidates,
        start_id=vocabulary.start_id,
        pad_id=vocabulary.pad_id,
        mask_id=network.shape.mask_id,
        seeds=[options.seed * 1_000_003 + length for length in lengths.tolist()],
        device=frames.device,
    )
    predict = Predictor(network, condition, positions, vocabulary.forbidden)
    fill(predict, canvas, options, share)
    tokens, log_probs = canvas.tokens.tolist(), canvas.log_probs.tolist()
    drafts = [
        Draft(
            tuple(
                _candidate(vocabulary, text[:count], sure[:count])
                for text, sure in zip(texts, sures, strict=True)
            ),
            count,
            passes,
            None if empty is None else empty[row],
        )
        for row, (texts, sures, count, passes) in enumerate(
            zip(tokens, log_probs, positions, canvas.passes, strict=True)
        )
    ]
    return drafts, condition


def _positions(
    network: DiffusionNetwork, frames: Frames, lengths: Lengths, options: DiffusionOptions
) -> tuple[list[int], list[float] | None]:
    """Return the positions of each utterance, and the probability that it has no token."""
    most = network.shape.positions
    if options.max_tokens is not None:
        most = min(most, options.max_tokens + 1)
    if network.length_head is None:
        return [most] * len(frames), None
    counts = network.length_head(frames, lengths)
    empty = counts[:, 0].exp().tolist()
    if options.length_head is False:
        return [most] * len(frames), empty
    wanted = length_quantile(counts, options.length_quantile)
    # the start token before the text, and a place for its end
    return [min(most, count + 2) for count in wanted], empty


def _candidate(
    vocabulary: Vocabulary, tokens: Sequence[int], log_probs: Sequence[float]
) -> Candidate:
    text = vocabulary.until_end(tokens)
    sure = log_probs[1 : len(text) + 1]
    ended = len(text) + 1 < len(tokens)
    words = []
    for places in vocabulary.words(text):
        own = tuple(text[place] for place in places)
        spelling = vocabulary.text(own).replace(" ", "")
        if spelling:
            words.append(Written(spelling, own, tuple(sure[place] for place in places)))
    return Candidate(tuple(words), log_probs[len(text) + 1] if ended else None)
