"""The envelope: its bands, its error, and noise that follows it."""

from __future__ import annotations

import pytest
import torch

from speechadapt.restoration.envelope import Envelope, band_triangles


def test_bands_sum_to_one_at_every_bin() -> None:
    for bands in (1, 5, 12):
        found = band_triangles(129, bands)
        torch.testing.assert_close(found.sum(1), torch.ones(129))
        assert bool((found.sum(0) > 0).all())


def test_noise_takes_the_envelope_it_is_given() -> None:
    envelope = Envelope(4, 6, 40)
    torch.nn.init.zeros_(envelope.head.weight)
    heights = torch.tensor([4.0, 2.0, 0.0, -2.0, -4.0, -6.0])
    envelope.head.bias.data = heights
    noise = torch.randn(4, 40 * 200, generator=torch.Generator().manual_seed(0))
    looked = torch.zeros(4, 200, 4)
    shaped = envelope.shaped(noise, looked)
    assert shaped.shape == noise.shape
    before, after = (torch.fft.rfft(one).abs().square().mean(0) for one in (noise, shaped))
    low, high = slice(10, 60), slice(3800, 3950)
    gain = (after[low].mean() / before[low].mean()).log()
    assert gain.item() == pytest.approx(4.0, abs=0.5)
    assert (after[high].mean() / before[high].mean()).log().item() == pytest.approx(-5.8, abs=0.5)


def test_the_error_is_zero_where_the_envelope_is_right() -> None:
    torch.manual_seed(0)
    envelope = Envelope(4, 6, 40)
    torch.nn.init.zeros_(envelope.head.weight)
    waveform = torch.zeros(1, 40 * 9)
    envelope.head.bias.data.fill_(float(torch.tensor(1e-8).log()))
    looked = torch.zeros(1, 9, 4)
    assert envelope.error(looked, waveform).item() == pytest.approx(0.0, abs=1e-5)
    envelope.head.bias.data += 0.5
    assert envelope.error(looked, waveform).item() == pytest.approx(0.5, abs=1e-5)
