"""Every term of the cleaner's loss against a sum by hand; padding and neighbours do not count."""

from __future__ import annotations

import pytest
import torch

from speechadapt.restoration.cleaner_loss import CleanerErrors, CleanerLossConfig, cleaner_errors

CLEAN = torch.tensor([[[1.0, -2.0], [3.0, 0.0]], [[2.0, 2.0], [9.0, 9.0]]])
GUESS = torch.tensor([[[2.0, -2.0], [1.0, 1.0]], [[1.0, 4.0], [-5.0, 7.0]]])
LENGTHS = torch.tensor([2, 1])


def test_the_terms_are_those_of_the_formula() -> None:
    errors = cleaner_errors(GUESS, CLEAN, LENGTHS)
    assert float(errors.absolute) == pytest.approx((4 / 4 + 3 / 2) / 2)
    assert float(errors.squared) == pytest.approx((6 / 4 + 5 / 2) / 2)
    assert float(errors.convergence) == pytest.approx((6 / 14 + 5 / 8) / 2)


def test_the_loss_is_their_weighted_sum() -> None:
    errors = CleanerErrors(*(torch.tensor(value) for value in (1.0, 10.0, 100.0)))
    assert float(errors.weighted(CleanerLossConfig())) == 111.0
    assert float(errors.weighted(CleanerLossConfig(2.0, 0.5, 0.0))) == 7.0


def test_a_row_adds_the_same_in_any_batch_and_padding() -> None:
    both = cleaner_errors(GUESS, CLEAN, LENGTHS)
    singles = [
        cleaner_errors(GUESS[row : row + 1, :n], CLEAN[row : row + 1, :n], torch.tensor([n]))
        for row, n in enumerate((2, 1))
    ]
    for name, term in vars(both).items():
        mean = sum(float(getattr(one, name)) for one in singles) / 2
        assert float(term) == pytest.approx(mean), name


def test_the_gradient_points_at_the_clean_features() -> None:
    guess = GUESS.clone().requires_grad_()
    cleaner_errors(guess, CLEAN, LENGTHS).weighted(CleanerLossConfig()).backward()
    assert guess.grad is not None
    valid = torch.tensor([[True, True], [True, False]])
    away = (GUESS - CLEAN).sign()
    assert torch.equal(guess.grad.sign()[valid], away[valid])
    assert not guess.grad[~valid].any()


def test_silent_targets_give_a_finite_loss() -> None:
    errors = cleaner_errors(GUESS, torch.zeros_like(CLEAN), LENGTHS)
    assert all(bool(torch.isfinite(term)) for term in vars(errors).values())
