"""Parallel diffusion decoding with several of its steps computed at once, from reused guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from speechadapt.decoders.masked_diffusion.canvas import Canvas, Marks, Numbers, Predict, Texts
from speechadapt.engines.reuse import Guess, Share, run_steps


@dataclass(frozen=True)
class Page:
    """A canvas between two steps.

    Args:
        tokens: What is written.
        log_probs: With what natural log-probability.
    """

    tokens: Texts
    log_probs: Numbers


class Overlapped:
    """The steps of a canvas whose hidden places are known beforehand.

    The states of a round lie beside one another as candidates, so they share the keys and values
    of the audio.

    Args:
        predict: The network.
        canvas: Says what is open.
        hidden: Places hidden in each step.
    """

    def __init__(self, predict: Predict, canvas: Canvas, hidden: Sequence[Marks]) -> None:
        self._predict = predict
        self._canvas = canvas
        self._hidden = list(hidden)
        self._rows = list(range(len(canvas.lengths)))

    def predict(self, states: Sequence[Page], steps: Sequence[int]) -> list[Guess]:
        """Guess a token for every open place; see `engines.reuse.Stepped`."""
        mask_id, places = self._canvas.mask_id, self._canvas.open
        given = [
            state.tokens.masked_fill(self._hidden[step], mask_id)
            for state, step in zip(states, steps, strict=True)
        ]
        together = torch.cat(given, 1)
        wanted = torch.cat([places] * len(given), 1)
        chosen, sure = self._predict(self._rows, together, wanted, 0.0, None)
        tokens = torch.zeros_like(together).masked_scatter(wanted, chosen)
        log_probs = torch.zeros(together.shape, device=sure.device).masked_scatter(wanted, sure)
        count = places.shape[1]
        return list(
            zip(torch.split(tokens, count, 1), torch.split(log_probs, count, 1), strict=True)
        )

    def advance(self, state: Page, guess: Guess, step: int) -> Page:
        """Write the guesses at the hidden places; see `engines.reuse.Stepped`."""
        hidden = self._hidden[step]
        return Page(
            torch.where(hidden, guess[0], state.tokens),
            torch.where(hidden, guess[1], state.log_probs),
        )


def write_ahead(
    predict: Predict,
    canvas: Canvas,
    hidden: Sequence[Marks],
    ahead: int,
    share: Share | None = None,
) -> None:
    """Write a canvas with several steps at once.

    Args:
        predict: The network.
        canvas: Is written.
        hidden: Places hidden in each step; all open ones in the first.
        ahead: Steps computed at once.
        share: Lets each of several processes compute one step of a round.
    """
    page, calls = run_steps(
        Overlapped(predict, canvas, hidden),
        Page(canvas.tokens, canvas.log_probs),
        len(hidden),
        ahead=ahead,
        share=share,
    )
    canvas.tokens, canvas.log_probs = page.tokens, page.log_probs
    canvas.passes = [passes + calls for passes in canvas.passes]
