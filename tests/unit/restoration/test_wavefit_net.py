"""WaveFit's network: shapes, the size of the source's, and what depends on what."""

from __future__ import annotations

import pytest
import torch

from speechadapt.restoration.wavefit import WaveFitConfig
from speechadapt.restoration.wavefit_net import WaveFitNet, iteration_code


def tiny(scales: bool = False, at_rate: bool = False) -> WaveFitNet:
    torch.manual_seed(0)
    return WaveFitNet(6, (5, 4, 2), (8, 6, 4), (3, 4, 8), scales, at_rate)


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("at_rate", [False, True])
def test_it_gives_a_sample_for_each_and_every_parameter_learns(scales: bool, at_rate: bool) -> None:
    net = tiny(scales, at_rate)
    waveforms, frames = torch.randn(2, 7 * 40), torch.randn(2, 6, 7)
    found = net(waveforms, frames, 3.0)
    assert found.shape == waveforms.shape
    (found * torch.randn_like(found)).sum().backward()
    unused = [
        name for name, one in net.named_parameters() if one.grad is None or not bool(one.grad.any())
    ]
    assert unused == []
    assert len(net.films) == (3 if at_rate else 2)


def test_it_depends_on_waveform_features_and_iteration() -> None:
    net = tiny()
    waveforms, frames = torch.randn(1, 280), torch.randn(1, 6, 7)
    found = net(waveforms, frames, 2.0)
    assert not torch.allclose(found, net(waveforms + 0.1, frames, 2.0))
    assert not torch.allclose(found, net(waveforms, frames + 0.1, 2.0))
    assert not torch.allclose(found, net(waveforms, frames, 1.0))


def test_iterations_have_codes_of_their_own() -> None:
    codes = torch.stack([iteration_code(float(i), 16, torch.device("cpu")) for i in range(1, 11)])
    distances = torch.cdist(codes, codes) + 10 * torch.eye(10)
    assert float(distances.min()) > 0.1
    assert float(codes.abs().max()) <= 1.0


def test_the_defaults_have_the_size_of_the_source() -> None:
    config = WaveFitConfig()
    net = WaveFitNet(
        config.width, config.factors, config.channels, config.down_channels, False, False
    )
    assert sum(one.numel() for one in net.parameters()) == pytest.approx(14e6, rel=0.1)
