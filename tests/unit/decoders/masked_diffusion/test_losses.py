from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from speechadapt.decoders.masked_diffusion.losses import (
    bound,
    draw_ratios,
    hide,
    masked_cross_entropy,
)
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape

VOCAB, LENGTH = 3, 3


@pytest.fixture(scope="module")
def table() -> dict[tuple[tuple[int, ...], int], list[float]]:
    """The log-probabilities a random network gives at each hidden place of each partial text."""
    torch.manual_seed(0)
    shape = DiffusionShape(VOCAB, 8, 1, 2, 8, LENGTH)
    network = DiffusionNetwork(shape).eval()
    for part in network.parameters():
        torch.nn.init.normal_(part, std=0.7)
    found = {}
    for text in itertools.product(range(VOCAB + 1), repeat=LENGTH):
        with torch.no_grad():
            states = network(torch.tensor(text)[None, None])[0, 0]
            log_probs = network.head(states).log_softmax(-1)
        for place in range(LENGTH):
            if text[place] == VOCAB:
                found[text, place] = log_probs[place].tolist()
    return found


def true_nll(table: dict, text: tuple[int, ...]) -> float:
    """The text's negative log-likelihood: it is written in a random order, token by token."""
    orders = list(itertools.permutations(range(LENGTH)))
    total = 0.0
    for order in orders:
        partial, log_prob = [VOCAB] * LENGTH, 0.0
        for place in order:
            log_prob += table[tuple(partial), place][text[place]]
            partial[place] = text[place]
        total += math.exp(log_prob) / len(orders)
    return -math.log(total)


def exact_bound(table: dict, text: tuple[int, ...]) -> float:
    """The mean of the estimate over all ratios and all choices of hidden places.

    The integral over p of p**(k - 1) * (1 - p)**(n - k) is (k - 1)! (n - k)! / n!.
    """
    total = 0.0
    for count in range(1, LENGTH + 1):
        weight = math.factorial(count - 1) * math.factorial(LENGTH - count)
        for places in itertools.combinations(range(LENGTH), count):
            partial = tuple(VOCAB if at in places else text[at] for at in range(LENGTH))
            costs = -sum(table[partial, place][text[place]] for place in places)
            total += weight / math.factorial(LENGTH) * costs
    return total


def mean_estimate(table: dict, text: tuple[int, ...]) -> float:
    """The mean of `bound` over ratios and hidden places; a polynomial, so four nodes are exact."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    total = 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        for marks in itertools.product((False, True), repeat=LENGTH):
            partial = tuple(
                VOCAB if mark else token for mark, token in zip(marks, text, strict=True)
            )
            rows = [table[partial, at] for at in range(LENGTH) if marks[at]]
            costs = bound(
                torch.tensor(rows).reshape(-1, VOCAB),
                torch.tensor([text]),
                torch.tensor([marks]),
                torch.tensor([node], dtype=torch.float32),
            )
            chance = node ** sum(marks) * (1 - node) ** (LENGTH - sum(marks))
            total += weight * chance * float(costs)
    return total


def test_the_bound_lies_above_the_true_negative_log_likelihood_of_every_text(table: dict) -> None:
    texts = list(itertools.product(range(VOCAB), repeat=LENGTH))
    truths = [true_nll(table, text) for text in texts]
    assert sum(math.exp(-nll) for nll in truths) == pytest.approx(1.0, abs=1e-5)
    gaps = [exact_bound(table, text) - nll for text, nll in zip(texts, truths, strict=True)]
    assert min(gaps) >= -1e-6
    assert max(gaps) > 1e-3  # the orders disagree, so the bound is not trivially the truth


@pytest.mark.parametrize("text", [(0, 2, 1), (1, 1, 1)])
def test_the_estimate_has_the_bound_as_its_mean(table: dict, text: tuple[int, ...]) -> None:
    assert mean_estimate(table, text) == pytest.approx(exact_bound(table, text), rel=1e-5)


def test_ratios_fill_their_range_one_in_each_stratum() -> None:
    generator = torch.Generator().manual_seed(3)
    ratios = draw_ratios(10, generator, 0.7, 1.0)
    strata = ((ratios - 0.7) / 0.03).long()
    assert sorted(strata.tolist()) == list(range(10))
    assert strata.tolist() != sorted(strata.tolist())
    assert float(draw_ratios(1000, generator).min()) >= 1e-3


def test_tokens_are_hidden_with_the_row_s_ratio_and_only_where_allowed() -> None:
    allowed = torch.ones(3, 4000, dtype=torch.bool)
    allowed[:, 0] = False
    hidden = hide(allowed, torch.tensor([0.0, 0.3, 1.0]), torch.Generator().manual_seed(0))
    assert not hidden[:, 0].any()
    assert not hidden[0].any()
    assert float(hidden[1].float().mean()) == pytest.approx(0.3, abs=0.03)
    assert hidden[2, 1:].all()


def test_cross_entropy_is_the_mean_over_all_hidden_tokens() -> None:
    log_probs = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]).log()
    tokens = torch.tensor([[0, 1, 1], [0, 0, 1]])
    hidden = torch.tensor([[False, True, True], [True, False, False]])
    expected = -(math.log(0.5) + math.log(0.75) + math.log(0.1)) / 3
    assert float(masked_cross_entropy(log_probs, tokens, hidden)) == pytest.approx(expected)
    rows = bound(log_probs, tokens, hidden, torch.tensor([0.5, 0.25]))
    assert rows.tolist() == pytest.approx(
        [-(math.log(0.5) + math.log(0.75)) / 0.5, -math.log(0.1) / 0.25]
    )


def test_nothing_hidden_costs_nothing() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    empty = torch.zeros(0, 4)
    assert float(masked_cross_entropy(empty, torch.zeros(2, 3, dtype=torch.long), nothing)) == 0.0
