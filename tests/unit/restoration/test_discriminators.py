"""Discriminators: how many, what they look at, and that all of them learn."""

from __future__ import annotations

import torch

from speechadapt.core.bind import bind
from speechadapt.restoration.discriminators import (
    DiscriminatorConfig,
    Discriminators,
    _compressed,
    _folded,
)

TINY = DiscriminatorConfig(
    scales=2,
    scale_channels=4,
    periods=(2, 3),
    period_channels=1,
    resolutions=(64, 128),
    resolution_channels=4,
)


def test_each_scale_period_and_resolution_judges_with_its_layers() -> None:
    torch.manual_seed(0)
    judges = Discriminators(TINY)
    found = judges(torch.randn(3, 1000))
    assert [len(one.features) for one in found] == [6, 6, 5, 5, 4, 4]
    assert all(one.verdict.shape[:2] == (3, 1) for one in found)
    assert found[1].verdict.shape[2] < found[0].verdict.shape[2]
    sum(one.verdict.sum() for one in found).backward()
    assert all(one.grad is not None for one in judges.parameters())


def test_a_period_lays_its_samples_in_columns() -> None:
    found = _folded(torch.arange(8.0)[None], 3)
    assert found[0, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 0]]


def test_a_resolution_sees_roots_of_magnitudes_and_phases_as_they_are() -> None:
    torch.manual_seed(0)
    waveforms = torch.randn(2, 512)
    found = _compressed(waveforms, 64)
    assert found.shape == (2, 66, 33)
    window = torch.hann_window(64)
    spectrum = torch.stft(
        waveforms, 64, 16, window=window, pad_mode="constant", return_complex=True
    )
    made = torch.complex(found[:, :33], found[:, 33:])
    torch.testing.assert_close(made.abs(), spectrum.abs().sqrt(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(made / made.abs(), spectrum / spectrum.abs(), atol=1e-4, rtol=1e-4)


def test_silence_has_a_gradient_under_every_judge() -> None:
    silence = torch.zeros(1, 600, requires_grad=True)
    sum(one.verdict.sum() for one in Discriminators(TINY)(silence)).backward()
    assert silence.grad is not None
    assert silence.grad.isfinite().all()


def test_settings_are_checked() -> None:
    assert "there must be a scale" in bind(DiscriminatorConfig, {"scales": 0, "periods": []})[1][0]
    assert "resolutions must be" in bind(DiscriminatorConfig, {"resolutions": [8]})[1][0]
    assert "periods must be 1" in bind(DiscriminatorConfig, {"periods": [0]})[1][0]
