"""Losses of vocoders: adversaries, their features, and spectra at several resolutions.

    discriminator  mean max(0, 1 - D(real)) + mean max(0, 1 + D(made))
    generator      -mean D(made)
                   + features * mean |layers of D(real) - layers of D(made)|
                   + convergence * ||R - M|| / ||R||  + magnitude * mean |log R - log M|

R and M are magnitudes of the real and the made signal; norms are Frobenius norms of a row's
spectrogram. Every term is a mean over discriminators or resolutions, and over the waveforms of all
iterations, each of which the discriminators see.

Source: WaveFit, https://arxiv.org/abs/2210.01029 section 4.3; weights of its public
    re-implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.core.limits import NotNegative
from speechadapt.core.shapes import Waveforms
from speechadapt.restoration.discriminators import Judged
from speechadapt.restoration.spectra import magnitudes

# transform, hop and window
RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
_LEAST = 1e-5


@dataclass(frozen=True)
class VocoderLossConfig:
    """Weights of the terms.

    Args:
        adversarial: Of the discriminators' verdicts.
        features: Of their layers.
        convergence: Of spectral convergence.
        magnitude: Of log-magnitudes.
        auxiliary: Of what no waveform shows (the envelope of the initial noise).
    """

    adversarial: NotNegative = 1.0
    features: NotNegative = 10.0
    convergence: NotNegative = 2.5
    magnitude: NotNegative = 2.5
    auxiliary: NotNegative = 1.0


def discriminator_loss(
    real: Sequence[Judged], made: Sequence[Sequence[Judged]]
) -> Float[Tensor, ""]:
    """Return the hinge loss of the discriminators.

    Args:
        real: Their view of the real signals.
        made: Their view of the made signals, iteration by iteration.
    """
    terms = []
    for views in made:
        for truth, view in zip(real, views, strict=True):
            terms.append((1 - truth.verdict).relu().mean() + (1 + view.verdict).relu().mean())
    return torch.stack(terms).mean()


def adversarial_loss(made: Sequence[Sequence[Judged]]) -> Float[Tensor, ""]:
    """Return what the generator gains by deceiving.

    Args:
        made: The discriminators' view of the made signals, iteration by iteration.
    """
    return -torch.stack([view.verdict.mean() for views in made for view in views]).mean()


def feature_loss(real: Sequence[Judged], made: Sequence[Sequence[Judged]]) -> Float[Tensor, ""]:
    """Return the distance of the discriminators' layers.

    Args:
        real: Their view of the real signals.
        made: Their view of the made signals, iteration by iteration.
    """
    terms = []
    for views in made:
        for truth, view in zip(real, views, strict=True):
            pairs = zip(truth.features, view.features, strict=True)
            terms.append(torch.stack([(a.detach() - b).abs().mean() for a, b in pairs]).mean())
    return torch.stack(terms).mean()


def spectral_losses(
    real: Waveforms, made: Sequence[Waveforms]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return spectral convergence and the distance of log-magnitudes.

    Args:
        real: Real signals.
        made: Made signals, iteration by iteration.
    """
    convergence, distance = [], []
    for resolution in RESOLUTIONS:
        wanted = magnitudes(real, *resolution)
        size = wanted.square().sum((1, 2)).sqrt().clamp(min=_LEAST)
        for waveforms in made:
            found = magnitudes(waveforms, *resolution)
            gap = (wanted - found).square().sum((1, 2)).clamp(min=_LEAST**2).sqrt()
            convergence.append((gap / size).mean())
            logs = wanted.clamp(min=_LEAST).log() - found.clamp(min=_LEAST).log()
            distance.append(logs.abs().mean())
    return torch.stack(convergence).mean(), torch.stack(distance).mean()
