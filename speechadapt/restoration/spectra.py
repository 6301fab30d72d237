"""Short-time spectra of batches of waveforms, and the way back that keeps whole frames."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional

from speechadapt.core.shapes import Waveforms

_LEAST = 1e-11


def magnitudes(
    waveforms: Waveforms, fft: int, hop: int, window: int
) -> Float[Tensor, "batch bins times"]:
    """Return magnitudes of the centred short-time Fourier transform, Hann windows.

    Args:
        waveforms: Signals of one length.
        fft: Length of the transform.
        hop: Samples between windows.
        window: Samples of a window.
    """
    shape = torch.hann_window(window, device=waveforms.device, dtype=waveforms.dtype)
    spectrum = torch.stft(
        waveforms, fft, hop, window, shape, pad_mode="constant", return_complex=True
    )
    # the square root has no gradient at zero
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=_LEAST).sqrt()


def framed_spectrum(
    waveforms: Waveforms, fft: int, hop: int
) -> Complex[Tensor, "batch bins frames"]:
    """Transform whole frames: window j is centred on the samples `[j hop, (j + 1) hop)`.

    Args:
        waveforms: Signals of a whole number of hops.
        fft: Length of window and transform, at least a hop.
        hop: Samples between windows.
    """
    side = (fft - hop) // 2
    padded = functional.pad(waveforms, (side, fft - hop - side))
    shape = torch.hann_window(fft, device=waveforms.device, dtype=waveforms.dtype)
    windows = padded.unfold(1, fft, hop) * shape
    spectrum: Tensor = torch.fft.rfft(windows, dim=2)
    return spectrum.transpose(1, 2)


def framed_waveforms(
    spectrum: Complex[Tensor, "batch bins frames"], fft: int, hop: int
) -> Waveforms:
    """Invert `framed_spectrum` by overlap-add: `frames * hop` samples, none lost at the ends.

    Args:
        spectrum: One transform a frame.
        fft: Length of window and transform.
        hop: Samples between windows.
    """
    frames = spectrum.shape[2]
    windows = torch.fft.irfft(spectrum, n=fft, dim=1)
    shape = torch.hann_window(fft, device=windows.device, dtype=windows.dtype)
    length = (frames - 1) * hop + fft
    summed = _overlapped(windows * shape[None, :, None], length, hop)
    weight = _overlapped(shape.square()[None, :, None].expand(1, -1, frames), length, hop)
    side = (fft - hop) // 2
    kept = slice(side, side + frames * hop)
    result: Tensor = summed[:, kept] / weight[:, kept].clamp(min=_LEAST)
    return result


def _overlapped(
    windows: Float[Tensor, "batch fft frames"], length: int, hop: int
) -> Float[Tensor, "batch length"]:
    folded = functional.fold(windows, (1, length), (1, windows.shape[1]), stride=(1, hop))
    return folded[:, 0, 0]
