"""What was heard, turned down to the levels of a generated signal: its own voice and phase stay.

    G  = min(1, |S| / |Y|)^power        Y heard, S generated; sizes smoothed over bins and frames
    y' = istft(max(G, floor) Y)

A vocoder gives back what is lost (bandwidth, gaps, clipped peaks), but in a voice that it makes up.
As a mask its signal takes noise and reverberation away and gives nothing back, and the voice stays
the speaker's. `power` 1 takes a cell down to the generated level, less keeps more of the input.

Source: spectral subtraction in its magnitude form (Boll 1979) with the generated speech in place of
    an estimate of the noise
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from speechadapt.audio.span import Signal
from speechadapt.restoration.request import MaskConfig

_WINDOW_S, _OVERLAP = 0.032, 4
_LEAST = 1e-9


def masked(heard: Signal, made: Signal, sample_rate: int, config: MaskConfig) -> Signal:
    """Turn a signal down, cell by cell of its spectrum, to another one's levels.

    Args:
        heard: What came in.
        made: What was generated from it, as many samples, at its level.
        sample_rate: Hz, of both.
        config: How strongly.

    Returns:
        As many samples.
    """
    size = 2 ** round(np.log2(_WINDOW_S * sample_rate))
    window, hop = torch.hann_window(size), size // _OVERLAP
    missing = max(0, size - len(heard))

    def spectrum(signal: Signal) -> Tensor:
        samples = torch.from_numpy(np.pad(np.asarray(signal, np.float32), (0, missing)))
        return torch.stft(samples, size, hop, window=window, return_complex=True)

    own, levels = spectrum(heard), spectrum(made)
    ratio = _smoothed(levels, config) / _smoothed(own, config).clamp(min=_LEAST)
    gain = ratio.clamp(max=1.0).pow(config.power).clamp(min=config.floor)
    found = torch.istft(own * gain, size, hop, window=window, length=len(heard) + missing)
    return found[: len(heard)].numpy()


def _smoothed(spectrum: Tensor, config: MaskConfig) -> Float[Tensor, "bins frames"]:
    """Return root mean squares over each cell's neighbours."""
    power = spectrum.abs().square()[None, None]
    shape = (2 * config.bins + 1, 2 * config.frames + 1)
    near = functional.avg_pool2d(
        power, shape, 1, (config.bins, config.frames), count_include_pad=False
    )
    return near[0, 0].sqrt()
