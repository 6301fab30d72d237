"""What a decoding strategy works on: the texts of a batch while they are being written.

A canvas holds K candidates for each utterance, and knows which places are open. Each utterance has
random numbers of its own, so what is written does not hang on the batch it is written in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from speechadapt.core.seed import derive_seed

Texts = Int[Tensor, "utterances candidates positions"]
Marks = Bool[Tensor, "utterances candidates positions"]
Numbers = Float[Tensor, "utterances candidates positions"]
Chosen = tuple[Int[Tensor, " places"], Float[Tensor, " places"]]
# (utterances of the canvas, their tokens, the places wanted, temperature, a random number for each
# place) -> tokens for the places, in order, and their natural log-probabilities
Predict = Callable[[Sequence[int], Texts, Marks, float, Float[Tensor, " places"] | None], Chosen]


class Canvas:
    """Texts in writing.

    Args:
        lengths: Positions of each utterance, the start token included.
        candidates: Texts for each.
        start_id: The first token, which is never hidden.
        pad_id: Ends a text.
        mask_id: MASK.
        seeds: Seed of each utterance.
        device: Where the network is.

    Attributes:
        tokens: What is written, MASK where nothing is.
        log_probs: Natural log-probability of each token when it was written; 0 where none was.
        open: Places that may be written.
        passes: How often the network was asked for each utterance.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        candidates: int,
        *,
        start_id: int,
        pad_id: int,
        mask_id: int,
        seeds: Sequence[int],
        device: torch.device | None = None,
    ) -> None:
        width = max(lengths)
        self.lengths = list(lengths)
        self.pad_id, self.mask_id = pad_id, mask_id
        shape = (len(self.lengths), candidates, width)
        self.tokens = torch.full(shape, mask_id, device=device)
        self.tokens[:, :, 0] = start_id
        self.log_probs = torch.zeros(shape, device=device)
        places = torch.arange(width, device=device)
        inside = places[None, :] < torch.tensor(self.lengths, device=device)[:, None]
        self.open = (inside & (places > 0))[:, None].expand(shape)
        self.tokens.masked_fill_(~inside[:, None], pad_id)
        self.passes = [0] * len(self.lengths)
        self._random = [
            torch.Generator().manual_seed(derive_seed("masked diffusion", seed)) for seed in seeds
        ]

    def uniform(self, rows: Sequence[int]) -> Numbers:
        """Draw a number between 0 and 1 for every place of some utterances, each from its own."""
        candidates, width = self.tokens.shape[1:]
        drawn = torch.zeros(len(rows), candidates, width)
        for at, row in enumerate(rows):
            length = self.lengths[row]
            drawn[at, :, :length] = torch.rand(candidates, length, generator=self._random[row])
        return drawn.to(self.tokens.device)

    def write(
        self,
        predict: Predict,
        rows: Sequence[int],
        hidden: Marks,
        temperature: float = 0.0,
        settle: Callable[[Numbers], Marks] | None = None,
        alike: bool = False,
    ) -> Bool[Tensor, " rows"]:
        """Ask the network for the hidden places of some utterances, and write what it says.

        Args:
            predict: The network.
            rows: Utterances.
            hidden: Places to ask for, by utterance of `rows`.
            temperature: Tokens are drawn at it; 0 takes the likeliest.
            settle: Chooses, from the log-probabilities of what would be written, the places where
                it is; None writes all.
            alike: The candidates of an utterance are the same, so one of them is asked for.

        Returns:
            Whether anything changed, by utterance of `rows`.
        """
        index = torch.tensor(list(rows), device=self.tokens.device)
        before = self.tokens[index]
        given = before.masked_fill(hidden, self.mask_id)
        one = slice(0, 1) if alike else slice(None)
        random = self.uniform(rows)[:, one][hidden[:, one]] if temperature > 0 else None
        chosen, sure = predict(rows, given[:, one], hidden[:, one], temperature, random)
        written = given[:, one].masked_scatter(hidden[:, one], chosen).expand_as(before)
        log_probs = torch.zeros_like(self.log_probs[index][:, one])
        log_probs = log_probs.masked_scatter(hidden[:, one], sure).expand_as(given)
        kept = hidden if settle is None else settle(log_probs) & hidden
        after = torch.where(kept, written, given)
        self.tokens[index] = after
        self.log_probs[index] = torch.where(kept, log_probs, self.log_probs[index])
        for row in rows:
            self.passes[row] += 1
        return (after != before).flatten(1).any(1)


def choose(
    logits: Float[Tensor, "places vocab"],
    temperature: float = 0.0,
    random: Float[Tensor, " places"] | None = None,
) -> Chosen:
    """Choose a token for each place.

    Args:
        logits: In float32; minus infinity where a token may not be written.
        temperature: Tokens are drawn at it; 0 takes the likeliest.
        random: A number between 0 and 1 for each place, where tokens are drawn.

    Returns:
        The tokens and their natural log-probabilities at temperature 1.
    """
    log_probs = logits.log_softmax(-1)
    if temperature == 0.0 or random is None:
        chosen = log_probs.argmax(-1)
    else:
        reached = (logits / temperature).softmax(-1).cumsum(-1)
        wanted = random[:, None] * reached[:, -1:]
        # never past the last token that may be written, however the sum was rounded
        last = (logits > -torch.inf).long().cumsum(-1).argmax(-1)
        chosen = torch.searchsorted(reached, wanted, right=True)[:, 0].minimum(last)
    return chosen, log_probs.gather(-1, chosen[:, None])[:, 0]
