"""Codecs keep length and timing, and change what they should."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from speechadapt.audio.degrade_codec import codec_problem, through_codec
from speechadapt.core.errors import ConfigError, MissingExtra

CODECS = ("mulaw", "alaw", "mp3:16", "mp3:64", "opus:24", "vorbis:0.3")


def voice(rate: int, seconds: float = 1.3) -> np.ndarray:
    """Return noise below 2.5 kHz that swells, which every codec here carries."""
    random = np.random.default_rng(0)
    count = int(rate * seconds)
    spectrum = np.fft.rfft(random.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / rate)
    signal = np.fft.irfft(spectrum * ((frequency > 100) & (frequency < 2500)), count)
    swell = 0.6 + 0.4 * np.sin(np.arange(count) / rate * 12)
    return (0.2 * swell * signal / signal.std()).astype(np.float32)


def lag(first: np.ndarray, second: np.ndarray) -> int:
    size = 2 * len(first)
    cross = np.fft.irfft(np.fft.rfft(second, size) * np.conj(np.fft.rfft(first, size)), size)
    found = int(np.argmax(cross))
    return found if found < len(first) else found - size


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rate", [16000, 24000, 44100])
def test_length_and_timing_are_kept(codec: str, rate: int) -> None:
    signal = voice(rate)
    coded = through_codec(signal, rate, codec)
    assert coded.shape == signal.shape
    assert coded.dtype == np.float32
    assert abs(lag(signal, coded)) <= rate * 1e-4
    error = np.mean((coded - signal) ** 2) / np.mean(signal**2)
    assert 0.0 < error < 0.5


def test_fewer_bits_change_more() -> None:
    signal = voice(16000)
    errors = [
        float(np.mean((through_codec(signal, 16000, f"mp3:{kbps}") - signal) ** 2))
        for kbps in (16, 48, 128)
    ]
    assert errors == sorted(errors, reverse=True)


def test_g711_has_eight_bits() -> None:
    ramp = np.linspace(-1, 1, 20000, dtype=np.float32)
    assert len(np.unique(through_codec(ramp, 16000, "mulaw"))) <= 256


def test_amr_needs_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match="The codec 'amr' needs the extra 'av'"):
        through_codec(voice(16000), 16000, "amr:7.95")


def test_amr_is_a_telephone_band() -> None:
    pytest.importorskip("av")
    signal = voice(16000)
    coded = through_codec(signal, 16000, "amr:12.2")
    assert coded.shape == signal.shape
    assert abs(lag(signal, coded)) <= 2
    power = np.abs(np.fft.rfft(coded)) ** 2
    assert power[len(power) * 4200 // 8000 :].sum() < 1e-3 * power.sum()


def test_settings_are_checked() -> None:
    assert codec_problem("mp3:64") is None
    assert codec_problem("alaw") is None
    assert codec_problem("mulaw:3") == "codec 'mulaw' takes no setting, got 'mulaw:3'."
    assert "between 8 and 320" in str(codec_problem("mp3:4000"))
    assert "between 8 and 320" in str(codec_problem("mp3"))
    with pytest.raises(ConfigError, match="Did you mean opus"):
        through_codec(voice(16000), 16000, "opos:16")


def test_nothing_stays_nothing() -> None:
    assert through_codec(np.zeros(0, dtype=np.float32), 16000, "mp3:16").shape == (0,)
