"""Lossy codecs as channels: a signal goes through an encoder and back, its length and timing kept.

A codec is written as `name` or `name:setting`:

    mulaw, alaw    G.711, 8 bits a sample, at the signal's own rate
    mp3:KBPS       constant bit rate; the nearest one the encoder offers at the rate
    opus:KBPS      variable bit rate around that mean
    vorbis:QUALITY 0 to 1
    amr:KBPS       AMR narrow band at 8 kHz, by PyAV (extra `av`)

Encoders delay what they code; the delay is measured once per codec and rate and taken out again.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from speechadapt.audio.augment import Signal, fit_length
from speechadapt.core.errors import ConfigError, MissingExtra, near_misses

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_AMR_RATE = 8000
_MOST_DELAY_S = 0.2
_NAMES = ("mulaw", "alaw", "mp3", "opus", "vorbis", "amr")
_RANGES = {"mp3": (8.0, 320.0), "opus": (6.0, 256.0), "vorbis": (0.0, 1.0), "amr": (4.0, 12.2)}


def codec_problem(codec: str) -> str | None:
    """Say what is wrong with the way a codec is written; None where nothing is.

    Args:
        codec: `name` or `name:setting`.
    """
    name, _, setting = codec.partition(":")
    if name not in _NAMES:
        return f"there is no codec '{name}'.{near_misses(name, _NAMES)}"
    if name not in _RANGES:
        return f"codec '{name}' takes no setting, got '{codec}'." if setting else None
    low, high = _RANGES[name]
    try:
        value = float(setting)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        return f"codec '{name}' takes a setting between {low:g} and {high:g}, got '{codec}'."
    return None


def through_codec(signal: Signal, sample_rate: int, codec: str) -> Signal:
    """Encode and decode a signal; length, rate and timing are kept.

    Args:
        signal: Mono samples; beyond full scale they are clipped, as the codecs do.
        sample_rate: Hz.
        codec: See the module's text.

    Returns:
        What comes out at the other end.

    Raises:
        ConfigError: There is no such codec.
        MissingExtra: The codec needs PyAV, which is not installed.
    """
    problem = codec_problem(codec)
    if problem:
        raise ConfigError(problem)
    if not len(signal):
        return signal
    decoded = _coded(signal, sample_rate, codec)
    return fit_length(_advanced(decoded, _delay(codec, sample_rate)), len(signal))


def _advanced(signal: Signal, delay: int) -> Signal:
    if delay >= 0:
        return signal[delay:]
    return np.asarray(np.pad(signal, (-delay, 0)), dtype=np.float32)


@cache
def _delay(codec: str, sample_rate: int) -> int:
    """Return by how many samples a codec is late, measured on noise."""
    probe = np.random.default_rng(0).standard_normal(2 * sample_rate).astype(np.float32) * 0.1
    decoded = fit_length(_coded(probe, sample_rate, codec), len(probe))
    size = 4 * sample_rate
    cross = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(probe, size)), size)
    reach = int(_MOST_DELAY_S * sample_rate)
    near = np.concatenate([cross[-reach:], cross[:reach]])
    return int(np.argmax(near)) - reach


def _coded(signal: Signal, sample_rate: int, codec: str) -> Signal:
    """Encode and decode at a rate the codec takes; the delay is still in, the length may differ."""
    name, _, setting = codec.partition(":")
    clipped = np.clip(signal, -1.0, 1.0)
    if name in ("mulaw", "alaw"):
        return _by_soundfile(clipped, sample_rate, "WAV", "ULAW" if name == "mulaw" else "ALAW")
    value = float(setting)
    if name == "vorbis":
        level = min(1.0 - value, _LEAST_QUALITY)
        return _by_soundfile(clipped, sample_rate, "OGG", "VORBIS", compression_level=level)
    if name == "amr":
        return _at_rate(clipped, sample_rate, _AMR_RATE, lambda part: _by_amr(part, value))
    if name == "opus":
        # libsndfile spreads its compression level over 6 to 256 kbit/s
        level = 1.0 - (value - 6.0) / 250.0
        rate = _nearest(sample_rate, _OPUS_RATES)
        return _at_rate(
            clipped,
            sample_rate,
            rate,
            lambda part: _by_soundfile(part, rate, "OGG", "OPUS", compression_level=level),
        )
    rate = _nearest(sample_rate, _MP3_RATES)
    low, high = _mp3_range(rate)
    level = min(max((high - value) / (high - low), 0.0), _LEAST_QUALITY)
    return _at_rate(
        clipped,
        sample_rate,
        rate,
        lambda part: _by_soundfile(
            part, rate, "MP3", "MPEG_LAYER_III", compression_level=level, bitrate_mode="CONSTANT"
        ),
    )


_LEAST_QUALITY = 0.99  # libsndfile refuses a compression level of 1 for some formats


def _mp3_range(rate: int) -> tuple[float, float]:
    """Return the lowest and highest bit rate of MPEG 1, 2 and 2.5 in kbit/s."""
    if rate >= 32000:
        return 32.0, 320.0
    return (8.0, 160.0) if rate >= 16000 else (8.0, 64.0)


def _nearest(sample_rate: int, offered: tuple[int, ...]) -> int:
    return next((rate for rate in offered if rate >= sample_rate), offered[-1])


def _at_rate(
    signal: Signal, sample_rate: int, rate: int, channel: Callable[[Signal], Signal]
) -> Signal:
    import soxr

    if rate == sample_rate:
        return channel(signal)
    moved = channel(np.clip(soxr.resample(signal, sample_rate, rate), -1.0, 1.0))
    return np.asarray(soxr.resample(moved, rate, sample_rate), dtype=np.float32)


def _by_soundfile(
    signal: Signal, rate: int, container: str, subtype: str, **settings: Any
) -> Signal:
    import soundfile

    memory = io.BytesIO()
    soundfile.write(memory, signal, rate, format=container, subtype=subtype, **settings)
    memory.seek(0)
    decoded, _ = soundfile.read(memory, dtype="float32")
    return np.asarray(decoded, dtype=np.float32)


def _by_amr(signal: Signal, kbps: float) -> Signal:
    try:
        import av
    except ImportError as error:
        raise MissingExtra("av", "The codec 'amr'") from error
    samples = np.round(signal * 32767.0).astype(np.int16)[None, :]
    memory = io.BytesIO()
    with av.open(memory, "w", format="amr") as container:
        stream = container.add_stream("libopencore_amrnb", rate=_AMR_RATE)
        stream.layout = "mono"
        stream.bit_rate = round(kbps * 1000)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = _AMR_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    memory.seek(0)
    with av.open(memory) as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
    decoded = np.concatenate(parts, axis=1)[0]
    scale = 32768.0 if decoded.dtype == np.int16 else 1.0
    return np.asarray(decoded / scale, dtype=np.float32)
