"""A coarse spectral envelope predicted from features, and noise shaped by it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.core.shapes import Waveforms
from speechadapt.restoration.spectra import framed_spectrum, framed_waveforms

_OVERLAP = 4
_LEAST = 1e-8


class Envelope(nn.Module):
    """Logarithms of the power in overlapping bands, one set a frame.

    The bands are triangles, narrow below and wide above; at every bin they sum to one.

    Args:
        width: Channels of the frames it is predicted from.
        bands: How many.
        hop: Samples of a frame.
    """

    def __init__(self, width: int, bands: int, hop: int) -> None:
        super().__init__()
        self.hop, self.fft = hop, _OVERLAP * hop
        self.head = nn.Linear(width, bands)
        triangles = band_triangles(self.fft // 2 + 1, bands)
        self.register_buffer("triangles", triangles, persistent=False)
        self.triangles: Tensor

    def shaped(self, noise: Waveforms, looked: Float[Tensor, "batch frames width"]) -> Waveforms:
        """Give white noise the predicted envelope.

        Args:
            noise: White, in step with the frames.
            looked: The frames.
        """
        heights = (self.head(looked) @ self.triangles.T).transpose(1, 2)
        spectrum = framed_spectrum(noise, self.fft, self.hop)
        return framed_waveforms(spectrum * torch.exp(heights / 2), self.fft, self.hop)

    def error(
        self, looked: Float[Tensor, "batch frames width"], waveforms: Waveforms
    ) -> Float[Tensor, ""]:
        """Return the mean absolute error of the logarithms.

        Args:
            looked: The frames.
            waveforms: Signals in step with them.
        """
        power = framed_spectrum(waveforms, self.fft, self.hop).abs().square().transpose(1, 2)
        bands = power @ self.triangles / self.triangles.sum(0)
        guess: Tensor = self.head(looked)
        return (guess - bands.clamp(min=_LEAST).log()).abs().mean()


def band_triangles(bins: int, bands: int) -> Float[Tensor, "bins bands"]:
    """Return how much of each bin belongs to each band.

    Args:
        bins: Of a spectrum from 0 Hz up.
        bands: How many; their peaks lie on a scale that is linear below and logarithmic above.
    """
    places = torch.log1p(torch.arange(bins) / bins * 10)
    peaks = torch.linspace(0.0, float(places[-1]), bands)
    if bands == 1:
        return torch.ones(bins, 1)
    spacing = float(peaks[1] - peaks[0])
    return (1 - (places[:, None] - peaks).abs() / spacing).clamp(min=0.0)
