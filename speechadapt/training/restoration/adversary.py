"""One step of generator and discriminators: two losses, one backward pass.

Both losses are taken at the same parameters. The discriminators' tensors are held constant where
the generator's loss is computed, and the made waveforms are where theirs is; so the sum of both has
the gradient of one for the generator and of the other for the discriminators. AdamW keeps its
moments per parameter, and the loop clips both gradients apart: the step is that of two optimisers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.core.shapes import Waveforms
from speechadapt.restoration.discriminators import Discriminators, Judged
from speechadapt.restoration.vocoder_loss import (
    VocoderLossConfig,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    spectral_losses,
)


@dataclass(frozen=True)
class Duel:
    """The losses of one step.

    Args:
        generator: What the generator minimises.
        discriminators: What the discriminators minimise; None where they take no part.
        figures: Every term alone.
    """

    generator: Float[Tensor, ""]
    discriminators: Float[Tensor, ""] | None
    figures: dict[str, float]

    @property
    def total(self) -> Float[Tensor, ""]:
        """The sum, whose gradients fall to the one or to the other."""
        if self.discriminators is None:
            return self.generator
        return self.generator + self.discriminators


def duel(
    discriminators: Discriminators | None,
    real: Waveforms,
    made: Sequence[Waveforms],
    config: VocoderLossConfig,
) -> Duel:
    """Compute both losses over the waveforms of every iteration.

    Args:
        discriminators: None leaves the adversaries out, as before the step they come in.
        real: Clean signals.
        made: The generator's signals, iteration by iteration.
        config: Weights of the generator's terms.
    """
    convergence, magnitude = spectral_losses(real, made)
    loss = config.convergence * convergence + config.magnitude * magnitude
    terms = {"convergence": convergence, "magnitude": magnitude}
    if discriminators is None:
        return Duel(loss, None, _figures(terms))
    truth = discriminators(real)
    views = [_constant(discriminators, waveforms) for waveforms in made]
    deceit, features = adversarial_loss(views), feature_loss(truth, views)
    loss = loss + config.adversarial * deceit + config.features * features
    verdicts = discriminator_loss(truth, [discriminators(one.detach()) for one in made])
    terms |= {"adversarial": deceit, "features": features, "discriminators": verdicts}
    return Duel(loss, verdicts, _figures(terms))


def _constant(discriminators: Discriminators, waveforms: Waveforms) -> list[Judged]:
    """Return the discriminators' view, with no gradient for their own tensors."""
    held = {name: value.detach() for name, value in discriminators.named_parameters()}
    found: list[Judged] = torch.func.functional_call(discriminators, held, (waveforms,))
    return found


def _figures(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(term.detach()) for name, term in terms.items()}
