"""Short-time spectra against a transform by hand, and the exact way back."""

from __future__ import annotations

import pytest
import torch

from speechadapt.restoration.spectra import framed_spectrum, framed_waveforms, magnitudes


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("fft", "hop"), [(64, 16), (48, 24), (60, 20)])
def test_whole_frames_come_back_exactly_to_the_last_sample(fft: int, hop: int) -> None:
    waveforms = noise(hop * 13)
    spectrum = framed_spectrum(waveforms, fft, hop)
    assert spectrum.shape == (2, fft // 2 + 1, 13)
    back = framed_waveforms(spectrum, fft, hop)
    torch.testing.assert_close(back, waveforms, atol=1e-4, rtol=1e-4)


def test_a_window_is_centred_on_its_frame() -> None:
    waveforms = torch.zeros(1, 16 * 9)
    waveforms[0, 16 * 4 : 16 * 5] = 1.0
    energy = framed_spectrum(waveforms, 64, 16).abs().square().sum((0, 1))
    assert int(energy.argmax()) == 4
    torch.testing.assert_close(energy, energy.flip(0), atol=0.05 * float(energy.max()), rtol=0.1)


def test_magnitudes_are_those_of_the_transform() -> None:
    waveforms = noise(400)
    found = magnitudes(waveforms, 64, 20, 40)
    padded = torch.nn.functional.pad(waveforms, (32, 32))
    window = torch.zeros(64)
    window[12:52] = torch.hann_window(40)
    for place in (0, 7, found.shape[2] - 1):
        wanted = torch.fft.rfft(padded[:, place * 20 : place * 20 + 64] * window).abs()
        torch.testing.assert_close(found[:, :, place], wanted, atol=1e-4, rtol=1e-4)


def test_silence_has_a_finite_gradient() -> None:
    waveforms = torch.zeros(1, 400, requires_grad=True)
    magnitudes(waveforms, 64, 20, 40).sum().backward()
    assert waveforms.grad is not None
    assert bool(waveforms.grad.isfinite().all())
