from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from speechadapt.decoders.masked_diffusion.canvas import Canvas
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.strategies import fill
from speechadapt.decoders.masked_diffusion.writer import Predictor

VOCAB, START, PAD = 6, 1, 0
Network = Callable[..., DiffusionNetwork]


def network(seed: int = 0) -> DiffusionNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = DiffusionNetwork(DiffusionShape(VOCAB, 16, 2, 2, 16, 12)).eval()
        for part in made.parameters():
            if part.ndim > 1:
                torch.nn.init.normal_(part, std=0.6)
    return made


def filled(
    made: DiffusionNetwork, lengths: list[int], options: DiffusionOptions, seeds: Any = None
) -> Canvas:
    canvas = Canvas(
        lengths,
        options.candidates,
        start_id=START,
        pad_id=PAD,
        mask_id=VOCAB,
        seeds=seeds or lengths,
    )
    with torch.no_grad():
        fill(Predictor(made, None, lengths, [START]), canvas, options)
    return canvas


def exhaustive_greedy(made: DiffusionNetwork, length: int) -> tuple[list[int], list[int]]:
    """Settle one token at a time: the likeliest of all tokens at all places still hidden."""
    tokens = [START] + [VOCAB] * (length - 1)
    order = []
    while VOCAB in tokens:
        best = (-1.0, 0, 0)
        with torch.no_grad():
            logits = made.head(made(torch.tensor(tokens)[None, None])[0, 0]).float()
        logits[:, START] = -torch.inf
        for place in range(length):
            for token in range(VOCAB):
                chance = float(logits[place].softmax(-1)[token])
                if tokens[place] == VOCAB and chance > best[0]:
                    best = (chance, place, token)
        tokens[best[1]] = best[2]
        order.append(best[1])
    return tokens, order


@pytest.mark.parametrize("seed", range(4))
def test_confidence_with_a_step_per_token_is_exhaustive_greedy(seed: int) -> None:
    made = network(seed)
    options = DiffusionOptions(strategy="confidence", num_steps=7)
    expected, order = exhaustive_greedy(made, 8)
    assert filled(made, [8], options).tokens[0, 0].tolist() == expected
    assert order != sorted(order) or seed != 0  # the order is not left to right by accident


def test_confidence_in_one_step_takes_every_first_guess() -> None:
    made = network()
    found = filled(made, [8], DiffusionOptions(strategy="confidence", num_steps=1))
    with torch.no_grad():
        given = torch.tensor([START] + [VOCAB] * 7)
        logits = made.head(made(given[None, None])[0, 0])
    logits[:, START] = -torch.inf
    assert found.tokens[0, 0, 1:].tolist() == logits.argmax(-1)[1:].tolist()
    assert found.passes == [1]


OPTIONS = [
    {"strategy": "pdd"},
    {"strategy": "pdd", "diversity": "masks"},
    {"strategy": "pdd", "diversity": "sample", "num_steps": 3},
    {"strategy": "pdd", "temperature": 0.7},
    {"strategy": "confidence", "gumbel": 1.0},
    {"strategy": "confidence", "diversity": "masks"},
    {"strategy": "ancestral", "temperature": 1.0},
    {"strategy": "semi_block", "block_size": 3, "temperature": 0.5, "num_steps": 2},
]


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_texts_are_whole_differ_by_seed_and_do_not_hang_on_the_batch(settings: dict) -> None:
    made = network(2)
    options = DiffusionOptions(num_candidates=4, **settings)
    lengths = [9, 5, 12]
    together = filled(made, lengths, options)
    assert not bool((together.tokens == VOCAB).any())
    assert bool((together.tokens[:, :, 0] == START).all())
    assert not bool((together.tokens[:, :, 1:] == START).any())
    for row, length in enumerate(lengths):
        alone = filled(made, [length], options)
        assert torch.equal(together.tokens[row, :, :length], alone.tokens[0])
        assert torch.allclose(together.log_probs[row, :, :length], alone.log_probs[0], atol=1e-5)
        assert together.passes[row] == alone.passes[0]
    assert len({tuple(text) for text in together.tokens[2].tolist()}) > 1
    other = filled(made, lengths, options, seeds=[101, 102, 103])
    assert not torch.equal(other.tokens, together.tokens)


def test_pdd_in_one_step_writes_one_guess_for_all() -> None:
    options = DiffusionOptions(num_candidates=3, num_steps=1)
    assert filled(network(), [6], options).tokens.shape == (1, 1, 6)


class Recorder:
    """Writes the token `place % 4 + 2` wherever it is asked, and notes where that was."""

    def __init__(self) -> None:
        self.hidden: list[Tensor] = []
        self.rows: list[list[int]] = []

    def __call__(self, rows, tokens, hidden, temperature, random):
        self.hidden.append(hidden.clone())
        self.rows.append(list(rows))
        places = torch.arange(hidden.shape[-1]).expand(hidden.shape)[hidden]
        return places % 4 + 2, torch.full(places.shape, -0.1)


def recorded(options: DiffusionOptions, lengths: list[int]) -> Recorder:
    recorder = Recorder()
    canvas = Canvas(
        lengths, options.candidates, start_id=START, pad_id=PAD, mask_id=VOCAB, seeds=lengths
    )
    fill(recorder, canvas, options)
    return recorder


def test_pdd_hides_everything_first_for_one_and_then_random_shares_for_each() -> None:
    options = DiffusionOptions(num_candidates=50, num_steps=5, early_stop=False)
    seen = recorded(options, [41]).hidden
    assert [one.shape[1] for one in seen] == [1, 50, 50, 50, 50]
    assert bool(seen[0][0, 0, 1:].all())
    shares = [float(one[:, :, 1:].float().mean()) for one in seen]
    assert shares == pytest.approx([1.0, 0.9, 0.85, 0.8, 0.7], abs=0.03)
    assert not any(bool(one[:, :, 0].any()) for one in seen)
    assert not torch.equal(seen[1][0, 0], seen[1][0, 1])


def test_an_utterance_that_a_step_left_alone_is_left_out() -> None:
    options = DiffusionOptions(num_candidates=3)
    assert len(recorded(options, [9, 6]).hidden) == 2
    assert len(recorded(replace(options, early_stop=False), [9, 6]).hidden) == 4


def test_steps_share_the_places_evenly() -> None:
    options = DiffusionOptions(strategy="confidence", num_steps=3)
    counts = [int(one.sum()) for one in recorded(options, [9]).hidden]
    assert counts == [8, 5, 2]


def test_every_candidate_has_its_own_budget() -> None:
    options = DiffusionOptions(strategy="confidence", num_steps=4, gumbel=1.0, num_candidates=3)
    for hidden in recorded(options, [9]).hidden:
        assert len(set(hidden.sum(-1).flatten().tolist())) == 1


def test_semi_block_goes_left_to_right_and_ends_with_the_first_pad() -> None:
    options = DiffusionOptions(strategy="semi_block", block_size=4, num_steps=1)
    asked = []

    def predict(rows, tokens, hidden, temperature, random):
        places = torch.arange(hidden.shape[-1]).expand(hidden.shape)[hidden]
        asked.append(places.tolist())
        return torch.where(places == 6, PAD, 3), torch.full(places.shape, -0.1)

    canvas = Canvas([20], 1, start_id=START, pad_id=PAD, mask_id=VOCAB, seeds=[0])
    fill(predict, canvas, options)
    assert asked == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert canvas.tokens[0, 0].tolist() == [START, 3, 3, 3, 3, 3, PAD, 3, 3] + [PAD] * 11


def test_ancestral_settles_about_an_equal_share_in_each_step() -> None:
    options = DiffusionOptions(strategy="ancestral", num_steps=4, num_candidates=40)
    counts = [int(one.sum()) for one in recorded(options, [51]).hidden]
    assert counts == pytest.approx([2000, 1500, 1000, 500], rel=0.08)
