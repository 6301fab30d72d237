"""The inverse-STFT vocoder: length, peak, gradients, nothing random."""

from __future__ import annotations

import torch

from speechadapt.core.bind import bind
from speechadapt.restoration.istft import IstftConfig, IstftVocoder
from speechadapt.restoration.vocoder import Speech

SPEECH = Speech(6, 50.0, 2000)


def test_it_gives_exactly_the_samples_of_its_frames() -> None:
    torch.manual_seed(0)
    for upsample in (1, 2, 4):
        vocoder = IstftVocoder(SPEECH, IstftConfig(width=8, layers=1, upsample=upsample))
        (made,) = vocoder(torch.randn(2, 9, 6), iterations=5)
        assert made.shape == (2, 9 * 40)
        torch.testing.assert_close(made.abs().amax(1), torch.full((2,), 0.9))


def test_the_same_frames_give_the_same_waveform() -> None:
    torch.manual_seed(0)
    vocoder = IstftVocoder(SPEECH, IstftConfig(width=8, layers=1))
    frames = torch.randn(2, 9, 6)
    first, again = vocoder(frames)[0], vocoder(frames)[0]
    assert torch.equal(first, again)
    single = vocoder(frames[:1])[0]
    torch.testing.assert_close(single, first[:1], atol=1e-5, rtol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    vocoder = IstftVocoder(SPEECH, IstftConfig(width=8, layers=1))
    made = vocoder(torch.randn(2, 9, 6))[0]
    (made * torch.randn_like(made)).sum().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in vocoder.parameters())


def test_settings_are_checked() -> None:
    assert "kernel must be odd" in bind(IstftConfig, {"kernel": 4})[1][0]
