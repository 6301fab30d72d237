"""What all vocoders share: the exact gain, samples in step with frames."""

from __future__ import annotations

import pytest
import torch

from speechadapt.core.errors import ConfigError
from speechadapt.restoration.vocoder import Speech, gain_adjusted


def test_every_row_gets_a_peak_of_nine_tenths() -> None:
    rows = torch.tensor([[0.1, -0.4, 0.2], [3.0, 1.0, -2.0], [0.0, 0.0, 0.0]])
    found = gain_adjusted(rows)
    torch.testing.assert_close(found[0], rows[0] * 0.9 / (0.4 + 1e-8), rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1], rows[1] * 0.9 / (3.0 + 1e-8), rtol=1e-6, atol=0)
    assert not found[2].any()
    torch.testing.assert_close(gain_adjusted(rows * 7.0), found)


def test_a_frame_must_last_a_whole_even_number_of_samples() -> None:
    speech = Speech(4, 100 / 3, 16000)
    assert speech.hop == 480
    assert speech.dense_hop(3) == 160
    with pytest.raises(ConfigError, match="upsample=7 was asked for, but a frame lasts 480"):
        speech.dense_hop(7)
