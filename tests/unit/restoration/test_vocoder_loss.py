"""Every loss against numbers by hand: signs, hinges, means over judges and iterations."""

from __future__ import annotations

import pytest
import torch

from speechadapt.restoration.discriminators import Judged
from speechadapt.restoration.spectra import magnitudes
from speechadapt.restoration.vocoder_loss import (
    RESOLUTIONS,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    spectral_losses,
)


def view(verdict: list[float], *features: list[float]) -> Judged:
    return Judged(torch.tensor(verdict), tuple(torch.tensor(one) for one in features))


REAL = [view([0.5, 2.0], [1.0, 1.0], [4.0]), view([-1.0], [0.0], [0.0])]
MADE = [
    [view([-0.5, -3.0], [2.0, 1.0], [1.0]), view([0.25], [1.0], [0.0])],
    [view([1.0, 1.0], [1.0, 1.0], [4.0]), view([-2.0], [0.0], [-2.0])],
]


def test_the_discriminators_hinge_on_both_sides_of_every_iteration() -> None:
    real = [(0.5 + 0.0) / 2, 2.0]
    made = [[(0.5 + 0.0) / 2, 1.25], [2.0, 0.0]]
    wanted = sum(real[d] + made[i][d] for i in range(2) for d in range(2)) / 4
    assert float(discriminator_loss(REAL, MADE)) == pytest.approx(wanted)


def test_the_generator_wants_high_verdicts_in_every_iteration() -> None:
    wanted = -((-0.5 - 3.0) / 2 + 0.25 + 1.0 - 2.0) / 4
    assert float(adversarial_loss(MADE)) == pytest.approx(wanted)


def test_features_are_compared_layer_by_layer() -> None:
    terms = [(0.5 + 3.0) / 2, (1.0 + 0.0) / 2, 0.0, (0.0 + 2.0) / 2]
    assert float(feature_loss(REAL, MADE)) == pytest.approx(sum(terms) / 4)


def test_features_of_real_signals_take_no_gradient() -> None:
    truth = torch.tensor([1.0], requires_grad=True)
    guess = torch.tensor([3.0], requires_grad=True)
    feature_loss([Judged(truth, (truth,))], [[Judged(guess, (guess,))]]).backward()
    assert truth.grad is None
    assert guess.grad is not None
    assert float(guess.grad) == 1.0


def test_spectra_are_compared_by_both_formulas_at_every_resolution() -> None:
    random = torch.Generator().manual_seed(0)
    real = torch.randn(2, 3000, generator=random)
    made = [torch.randn(2, 3000, generator=random), 0.5 * real]
    convergence, distance = spectral_losses(real, made)
    norms, logs = [], []
    for resolution in RESOLUTIONS:
        wanted = magnitudes(real, *resolution)
        for signal in made:
            found = magnitudes(signal, *resolution)
            norms += [float((wanted[r] - found[r]).norm() / wanted[r].norm()) for r in range(2)]
            logs.append(float((wanted.log() - found.log()).abs().mean()))
    assert float(convergence) == pytest.approx(sum(norms) / len(norms), rel=1e-4)
    assert float(distance) == pytest.approx(sum(logs) / len(logs), rel=1e-3)


def test_half_the_level_has_known_losses_and_a_copy_has_none() -> None:
    real = torch.randn(1, 3000, generator=torch.Generator().manual_seed(0))
    convergence, distance = spectral_losses(real, [0.5 * real])
    assert float(convergence) == pytest.approx(0.5, rel=1e-3)
    assert float(distance) == pytest.approx(0.693, rel=1e-2)
    assert all(float(term) < 1e-4 for term in spectral_losses(real, [real.clone()]))


def test_silence_has_finite_losses_and_gradients() -> None:
    made = torch.randn(1, 3000).requires_grad_()
    sum(spectral_losses(torch.zeros(1, 3000), [made])).backward()
    assert bool(made.grad.isfinite().all())
