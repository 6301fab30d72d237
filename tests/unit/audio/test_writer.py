"""Files that are written: every format, every rate, equal bytes for equal samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.audio.writer import AudioWriter, writable_rate
from speechadapt.core.errors import ConfigError


def noise(channels: int, count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return (0.1 * random.standard_normal((channels, count))).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int, portion: int = 1000) -> bytes:
    with AudioWriter(path, path.suffix[1:], rate, len(samples)) as writer:
        for start in range(0, samples.shape[1], portion):
            writer.write(samples[:, start : start + portion])
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["flac", "wav", "opus"])
@pytest.mark.parametrize("channels", [1, 2])
def test_all_samples_are_there_at_the_rate(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = noise(channels, 12345)
    write(tmp_path / f"a.{suffix}", samples, 16000)
    info = soundfile.info(tmp_path / f"a.{suffix}")
    found, rate = soundfile.read(tmp_path / f"a.{suffix}", dtype="float32", always_2d=True)
    assert (rate, info.channels) == (16000, channels)
    assert len(found) == 12345
    if suffix != "opus":
        np.testing.assert_allclose(found.T, samples, atol=2**-15)


@pytest.mark.parametrize("suffix", ["flac", "wav", "opus"])
def test_equal_samples_are_equal_bytes_in_any_portions(tmp_path: Path, suffix: str) -> None:
    samples = noise(1, 30000)
    first = write(tmp_path / f"a.{suffix}", samples, 16000)
    assert write(tmp_path / f"b.{suffix}", samples, 16000) == first
    if suffix != "opus":
        assert write(tmp_path / f"c.{suffix}", samples, 16000, 7777) == first


def test_what_is_beyond_full_scale_is_clipped(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", np.array([[0.0, 2.0, -2.0]], dtype=np.float32), 16000)
    found, _ = soundfile.read(tmp_path / "a.wav")
    np.testing.assert_allclose(found, [0.0, 1.0, -1.0], atol=1e-4)


def test_formats_and_rates_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"named 'flca'\. Did you mean flac"):
        AudioWriter(tmp_path / "a", "flca", 16000, 1)
    with pytest.raises(ConfigError, match="Opus was asked for at 44100 Hz"):
        AudioWriter(tmp_path / "a", "opus", 44100, 1)
    assert [writable_rate("opus", rate) for rate in (8000, 11025, 44100, 96000)] == [
        8000,
        12000,
        48000,
        48000,
    ]
    assert writable_rate("flac", 44100) == 44100
