"""Frames stand in step with samples, to the last one."""

from __future__ import annotations

import pytest
import torch

from speechadapt.core.errors import ConfigError
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.frames import frame_hop, framed, num_frames


@pytest.mark.parametrize("samples", [1, 300, 319, 320, 321, 640, 5000, 16000, 16001])
def test_the_encoder_gives_exactly_the_frames_that_cover_a_signal(tiny_folder, signal, samples):
    encoder = load_cut(tiny_folder("w2v_bert"), 1)
    hop = frame_hop(encoder, 16000)
    _, lengths = encoder.extract([framed(signal(samples), encoder)])
    assert int(lengths[0]) == num_frames(samples, hop)
    assert num_frames(samples, hop) * hop >= samples > (num_frames(samples, hop) - 1) * hop


def test_the_signal_stands_after_half_an_overhang(tiny_folder, signal) -> None:
    encoder = load_cut(tiny_folder("w2v_bert"), 1)
    waveform = signal(4000)
    padded = framed(waveform, encoder)
    assert torch.equal(padded[120:4120], waveform)
    assert torch.equal(padded[:120], waveform[1:121].flip(0))


def test_a_rate_out_of_step_is_refused(tiny_folder) -> None:
    encoder = load_cut(tiny_folder("w2v_bert"), 1)
    assert frame_hop(encoder, 24000) == 480
    with pytest.raises(ConfigError, match=r"would last 220\.5 samples"):
        frame_hop(encoder, 11025)
