"""The token rows of masked-diffusion training: start, text, pads; some of them hidden."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from speechadapt.core.seed import derive_seed
from speechadapt.decoders.masked_diffusion.losses import draw_ratios, hide
from speechadapt.decoders.masked_diffusion.vocabulary import Vocabulary
from speechadapt.training.diffusion.config import MaskingConfig
from speechadapt.training.objective import Batch


class TokenRows:
    """Makes the rows of any step from their texts.

    Args:
        vocabulary: Writes them.
        positions: Most tokens of a row, the start and the end counted.
        masking: What is hidden.
    """

    def __init__(self, vocabulary: Vocabulary, positions: int, masking: MaskingConfig) -> None:
        self.vocabulary = vocabulary
        self.positions = positions
        self.masking = masking

    def __call__(self, texts: Sequence[str], *seed: int | str) -> Batch:
        """Return a batch.

        A text that is longer than the positions is cut, without an end.

        Args:
            texts: One for each row; an empty one is a row of pads.
            seed: Parts of the seed of all that is random.

        Returns:
            `tokens`; `hidden`, True where one is, and `ratios`, both by row and draw; `valid`,
            positions per row; `counts`, tokens of the text per row; `cut`, whether it was longer.
        """
        random = torch.Generator().manual_seed(derive_seed("token rows", *seed))
        written = [self.vocabulary.encode(text) for text in texts]
        room = self.positions - 1
        slack = self._slack(len(texts), random)
        sizes = [
            min(self.positions, len(text) + 2 + more)
            for text, more in zip(written, slack, strict=True)
        ]
        tokens = torch.full((len(texts), max(sizes)), self.vocabulary.pad_id)
        tokens[:, 0] = self.vocabulary.start_id
        for row, text in enumerate(written):
            kept = text[:room]
            tokens[row, 1 : len(kept) + 1] = torch.tensor(kept, dtype=torch.long)
        valid = torch.tensor(sizes)
        places = torch.arange(tokens.shape[1])
        allowed = (places > 0)[None, :] & (places[None, :] < valid[:, None])
        draws = self.masking.draws
        ratios = draw_ratios(draws * len(texts), random, *self.masking.ratio)
        hidden = hide(allowed.repeat_interleave(draws, 0), ratios, random)
        return {
            "tokens": tokens,
            "hidden": hidden.view(len(texts), draws, -1),
            "ratios": ratios.view(len(texts), draws),
            "valid": valid,
            "counts": torch.tensor([min(len(text), room) for text in written]),
            "cut": torch.tensor([len(text) > room for text in written]),
        }

    def _slack(self, rows: int, random: torch.Generator) -> list[int]:
        if self.masking.slack == 0:
            return [self.positions] * rows
        drawn = torch.randint(0, self.masking.slack + 1, (rows,), generator=random)
        return [int(one) for one in drawn]
