"""Blocks at the frame rate: shapes, interpolation in time, gradients everywhere."""

from __future__ import annotations

import torch

from speechadapt.restoration.frame_net import ConvNextBlock, FrameNet, denser


def test_frames_become_denser_and_stay_in_place() -> None:
    ramp = torch.arange(8.0)[None, :, None]
    dense = denser(ramp, 4)
    assert dense.shape == (1, 32, 1)
    middles = dense[0, :, 0].reshape(8, 4).mean(1)
    torch.testing.assert_close(middles[1:-1], ramp[0, 1:-1, 0])
    assert denser(ramp, 1) is ramp


def test_every_parameter_matters() -> None:
    torch.manual_seed(0)
    net = FrameNet(dim=6, width=8, layers=2, kernel=3, upsample=2)
    found = net(torch.randn(2, 5, 6))
    assert found.shape == (2, 10, 8)
    (found * torch.randn_like(found)).sum().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in net.parameters())


def test_a_block_with_scale_zero_changes_nothing() -> None:
    block = ConvNextBlock(4, 3, 0.0)
    frames = torch.randn(1, 7, 4)
    assert torch.equal(block(frames), frames)
