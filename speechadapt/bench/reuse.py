"""Keys and values of the audio computed once per utterance, against computing them again.

The published decoder projects the frames anew in every step and for every candidate. Both ways
write the same text; the comparison is of the decoder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.bench.options import DecoderBench
from speechadapt.bench.passes import timed
from speechadapt.bench.random_weights import RandomModel
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.masked_diffusion.canvas import Canvas, Chosen, Marks, Predict, Texts
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.strategies import fill
from speechadapt.decoders.masked_diffusion.writer import Predictor

POSITIONS = (96, 256)


class Recomputed:
    """The network as a strategy sees it, projecting the frames for every candidate it is asked for.

    Args:
        network: In evaluation mode.
        frames: Encoder frames.
        lengths: Valid frames per row.
        positions: Positions of each utterance.
        forbidden: Tokens that are never written.
    """

    def __init__(
        self,
        network: DiffusionNetwork,
        frames: Frames,
        lengths: Lengths,
        positions: Sequence[int],
        forbidden: Sequence[int],
    ) -> None:
        self.network = network
        self._frames, self._lengths = frames, lengths
        self._positions, self._forbidden = list(positions), list(forbidden)

    def __call__(
        self,
        rows: Sequence[int],
        tokens: Texts,
        hidden: Marks,
        temperature: float,
        random: Float[Tensor, " places"] | None,
    ) -> Chosen:
        """Choose tokens for the hidden places; see `canvas.Predict`."""
        count = tokens.shape[1]
        each = torch.tensor(list(rows), device=tokens.device).repeat_interleave(count)
        condition = self.network.condition(self._frames[each], self._lengths[each])
        positions = [self._positions[row] for row in rows for _ in range(count)]
        predict = Predictor(self.network, condition, positions, self._forbidden)
        alone = (tokens.flatten(0, 1)[:, None], hidden.flatten(0, 1)[:, None])
        return predict(range(len(positions)), *alone, temperature, random)


def compare_reuse(model: RandomModel, options: DecoderBench) -> list[dict[str, Any]]:
    """Time both ways, which take turns.

    Args:
        model: Its diffusion network is used, on frames of a whole window.
        options: Candidates, steps, batch and rounds.

    Returns:
        A row for every number of positions and of candidates; `same` says whether both ways wrote
        the same tokens.
    """
    return [
        _compare(model, options, positions, count)
        for positions in sorted({min(one, model.diffusion.shape.positions) for one in POSITIONS})
        for count in options.candidate_counts
    ]


@torch.inference_mode()
def _compare(
    model: RandomModel, options: DecoderBench, positions: int, count: int
) -> dict[str, Any]:
    network, forbidden = model.diffusion, model.vocabulary.forbidden
    weight = network.head.weight
    size = round((model.encoder.window_s or 0) * model.encoder.frame_rate)
    frames = torch.randn(options.batch_size, size, network.shape.condition_dim).to(weight)
    lengths = torch.full((len(frames),), size, device=weight.device)
    places = [positions] * len(frames)
    settings = DiffusionOptions(
        num_candidates=count, num_steps=options.step_counts[-1], early_stop=False
    )

    def once() -> Predict:
        return Predictor(network, network.condition(frames, lengths), places, forbidden)

    def again() -> Predict:
        return Recomputed(network, frames, lengths, places, forbidden)

    ways = {"reused": once, "recomputed": again}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    written: dict[str, Texts] = {}
    for turn in range(options.rounds):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            work = partial(_written, model, ways[name], places, settings)
            took, written[name] = timed(work, weight.device)
            seconds[name].append(took)
    both = zip(seconds["recomputed"], seconds["reused"], strict=True)
    return {
        "positions": positions,
        "num_candidates": count,
        "num_steps": settings.num_steps,
        "frames": size,
        "seconds": seconds,
        "ratios": [slow / fast for slow, fast in both],
        "same": bool(torch.equal(written["reused"], written["recomputed"])),
    }


def _written(
    model: RandomModel,
    way: Callable[[], Predict],
    places: Sequence[int],
    settings: DiffusionOptions,
) -> Texts:
    """Decode a batch, projections included, and return its tokens."""
    canvas = Canvas(
        places,
        settings.num_candidates,
        start_id=model.vocabulary.start_id,
        pad_id=model.vocabulary.pad_id,
        mask_id=model.diffusion.shape.mask_id,
        seeds=list(range(len(places))),
        device=model.diffusion.head.weight.device,
    )
    fill(way(), canvas, settings)
    return canvas.tokens
