"""Generator against discriminators: each gradient from its own loss, every iteration judged."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from speechadapt.restoration.discriminators import DiscriminatorConfig, Discriminators
from speechadapt.restoration.vocoder_loss import (
    VocoderLossConfig,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    spectral_losses,
)
from speechadapt.training.objective import Group
from speechadapt.training.optimiser import clip_norms, make_optimizer
from speechadapt.training.restoration.adversary import duel

CONFIG = DiscriminatorConfig(scales=1, scale_channels=4, periods=(2,), period_channels=1)
WEIGHTS = VocoderLossConfig()


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Linear(20, 600)
        self.discriminators = Discriminators(CONFIG)

    def made(self, seed: int = 0) -> list[Tensor]:
        random = torch.Generator().manual_seed(seed)
        first = self.generator(torch.randn(2, 20, generator=random))
        return [first, 0.5 * self.generator(torch.randn(2, 20, generator=random))]


def real(seed: int = 9) -> Tensor:
    return torch.randn(2, 600, generator=torch.Generator().manual_seed(seed))


def grads(module: nn.Module) -> list[Tensor]:
    return [one.grad.clone() for one in module.parameters() if one.grad is not None]


def test_one_backward_pass_gives_the_gradients_of_two() -> None:
    pair = Pair()
    duel(pair.discriminators, real(), pair.made(), WEIGHTS).total.backward()
    together = grads(pair)
    other = Pair()
    made = other.made()
    judges = other.discriminators
    with torch.no_grad():
        truth = judges(real())
    views = [judges(one) for one in made]
    convergence, magnitude = spectral_losses(real(), made)
    loss = 2.5 * convergence + 2.5 * magnitude
    loss = loss + adversarial_loss(views) + 10 * feature_loss(truth, views)
    wanted = list(torch.autograd.grad(loss, list(other.generator.parameters())))
    verdict = discriminator_loss(judges(real()), [judges(one.detach()) for one in made])
    wanted += list(torch.autograd.grad(verdict, list(judges.parameters())))
    assert len(together) == len(wanted)
    for found, one in zip(together, wanted, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-6)


def test_discriminators_see_every_iteration() -> None:
    pair = Pair()
    seen: list[tuple[bool, Tensor]] = []
    pair.discriminators.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0].requires_grad, inputs[0].detach()))
    )
    made = pair.made()
    duel(pair.discriminators, real(), made, WEIGHTS)
    for waveforms in made:
        hits = [grad for grad, one in seen if torch.equal(one, waveforms.detach())]
        assert sorted(hits) == [False, True], "once for either side"


def test_without_discriminators_spectra_alone_count() -> None:
    pair = Pair()
    losses = duel(None, real(), pair.made(), WEIGHTS)
    assert losses.discriminators is None
    assert set(losses.figures) == {"convergence", "magnitude"}
    losses.total.backward()
    assert all(one.grad is None for one in pair.discriminators.parameters())


def test_one_optimiser_steps_as_two_with_their_own_rates_and_norms() -> None:
    pair = Pair()
    twin = copy.deepcopy(pair)
    groups = {"discriminators.": Group(rate=2.0)}
    both = make_optimizer(pair, "adamw", 1e-2, 0.01, (0.8, 0.99), groups)
    apart = [
        make_optimizer(part, "adamw", rate, 0.01, (0.8, 0.99))
        for part, rate in ((twin.generator, 1e-2), (twin.discriminators, 2e-2))
    ]
    for step in range(3):
        both.zero_grad()
        duel(pair.discriminators, real(), pair.made(step), WEIGHTS).total.backward()
        clip_norms(pair, ("discriminators.",), 0.5)
        both.step()
        losses = duel(twin.discriminators, real(), twin.made(step), WEIGHTS)
        for optimizer in apart:
            optimizer.zero_grad()
        losses.generator.backward()
        assert losses.discriminators is not None
        losses.discriminators.backward()
        for part, optimizer in zip((twin.generator, twin.discriminators), apart, strict=True):
            torch.nn.utils.clip_grad_norm_(part.parameters(), 0.5)
            optimizer.step()
    for found, wanted in zip(pair.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
