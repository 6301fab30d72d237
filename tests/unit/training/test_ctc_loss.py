from __future__ import annotations

import itertools
import math

import pytest
import torch

from speechadapt.training.ctc_loss import ctc_per_label


def brute_force(logprobs: torch.Tensor, labels: list[int], blank: int = 0) -> float:
    """Sum the probability of every path that spells `labels`."""
    frames, symbols = logprobs.shape
    total = 0.0
    for path in itertools.product(range(symbols), repeat=frames):
        spelled = [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]
        if spelled == labels:
            total += math.exp(sum(float(logprobs[t, s]) for t, s in enumerate(path)))
    return -math.log(total)


def test_the_loss_is_that_of_all_alignments_per_label() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3)
    labels, counts = torch.tensor([[1, 2], [2, 0]]), torch.tensor([2, 1])
    loss, fits = ctc_per_label(logits, torch.tensor([4, 3]), labels, counts, 0)
    logprobs = logits.log_softmax(-1)
    wanted = brute_force(logprobs[0], [1, 2]) + brute_force(logprobs[1, :3], [2])
    assert float(loss) == pytest.approx(wanted / 3, rel=1e-5)
    assert fits.tolist() == [True, True]


def test_rows_too_short_for_their_labels_are_counted_and_leave_the_gradient_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 6, 4, requires_grad=True)
    labels = torch.tensor([[1, 1, 2], [1, 2, 3], [3, 0, 0]])
    lengths, counts = torch.tensor([3, 3, 6]), torch.tensor([3, 3, 1])
    loss, fits = ctc_per_label(logits, lengths, labels, counts, 0)
    loss.backward()
    assert fits.tolist() == [False, True, True]  # 1 1 2 needs a blank between the ones
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[0].any()
    alone, _ = ctc_per_label(logits[1:], lengths[1:], labels[1:], counts[1:], 0)
    assert float(loss.detach()) == pytest.approx(float(alone.detach()))


def test_a_row_without_labels_asks_for_blanks() -> None:
    logits = torch.zeros(1, 2, 4)
    loss, fits = ctc_per_label(logits, torch.tensor([2]), torch.tensor([[0]]), torch.tensor([0]), 0)
    assert float(loss) == pytest.approx(2 * math.log(4))
    assert fits.tolist() == [True]
