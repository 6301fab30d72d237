"""Augmentation of training audio: every function takes its randomness as a NumPy generator.

Signals are mono float32 arrays; features are `[frames, bands]` arrays of normalised log-mel values.
The same generator state gives the same result, so an item is a function of (seed, step, row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from speechadapt.core.limits import (
    CountOrNone,
    Interval,
    NotNegative,
    Positive,
    PositiveInterval,
    Probability,
    Range,
)

Signal = NDArray[np.float32]


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities and ranges of augmentation.

    Args:
        speed: Lowest and highest playback factor (pitch, formants and tempo together).
        speed_prob: Probability of a changed speed.
        trim_prob: Probability that the quiet before and after the speech is cut off, as in
            recordings that are cut tight.
        band_limit_prob: Probability of a telephone-like band (resampled through 8 kHz).
        noise_prob: Probability of added noise.
        snr_db: Lowest and highest signal-to-noise ratio.
        reverb_prob: Probability of a room impulse response.
        gain_db: Lowest and highest level change.
        unit_db: Decibels that one unit of a feature stands for: about 10 for normalised log-mel
            (units of a band's deviation), 40 for Whisper's.
        tilt_db: Largest tilt of the spectrum between the lowest and highest band, up or down.
        formant: Largest relative shift of the band axis (vocal-tract length), up or down.
        tempo: Lowest and highest tempo factor, pitch kept.
        time_masks: Number of time masks.
        time_mask_rate: Longest time mask as a fraction of the frames.
        band_masks: Number of band masks.
        band_mask_width: Widest band mask, of 80 bands.
        mask_from_step: Masks start at this step.
    """

    speed: PositiveInterval = (0.85, 1.18)
    speed_prob: Probability = 0.8
    trim_prob: Probability = 0.0
    band_limit_prob: Probability = 0.3
    noise_prob: Probability = 0.4
    snr_db: Interval = (5.0, 30.0)
    reverb_prob: Probability = 0.2
    gain_db: Interval = (-10.0, 6.0)
    unit_db: Positive = 10.0
    tilt_db: NotNegative = 6.0
    formant: Annotated[float, Range(0.0, 0.5)] = 0.12
    tempo: PositiveInterval = (0.85, 1.2)
    time_masks: CountOrNone = 2
    time_mask_rate: Probability = 0.08
    band_masks: CountOrNone = 2
    band_mask_width: CountOrNone = 12
    mask_from_step: CountOrNone = 0


def change_speed(signal: Signal, factor: float) -> Signal:
    """Play `signal` faster (`factor` > 1) or slower; pitch and formants move with the tempo."""
    import soxr

    steps = round(100 * factor)
    return np.asarray(soxr.resample(signal, steps, 100, quality="MQ"), dtype=np.float32)


def band_limit(signal: Signal, sample_rate: int, limit_hz: int = 8000) -> Signal:
    """Send `signal` through a channel sampled at `limit_hz` and back; the length is kept."""
    import soxr

    narrow = soxr.resample(signal, sample_rate, limit_hz, quality="MQ")
    wide = np.asarray(soxr.resample(narrow, limit_hz, sample_rate, quality="MQ"), dtype=np.float32)
    return fit_length(wide, len(signal))


def add_noise(signal: Signal, noise: Signal, snr_db: float, random: np.random.Generator) -> Signal:
    """Add a random stretch of `noise` at a signal-to-noise ratio over the whole signal.

    Args:
        signal: The speech.
        noise: Repeated where it is shorter than the speech.
        snr_db: Ratio of mean powers in decibels.
        random: Picks the stretch.
    """
    if len(noise) < len(signal):
        noise = np.tile(noise, -(-len(signal) // max(1, len(noise))))
    start = int(random.integers(0, len(noise) - len(signal) + 1))
    piece = noise[start : start + len(signal)]
    power = float(np.mean(signal**2)) + 1e-10
    noise_power = float(np.mean(piece**2)) + 1e-10
    scale = np.sqrt(power / noise_power / 10 ** (snr_db / 10))
    return signal + np.float32(scale) * piece


def reverberate(signal: Signal, response: Signal, direct: int | None = None) -> Signal:
    """Convolve with a room impulse response; length, level and direct-path position are kept.

    Args:
        signal: The speech.
        response: The room.
        direct: Sample at which the direct path arrives; None takes the largest one.
    """
    peak = int(np.argmax(np.abs(response))) if direct is None else direct
    size = 1 << (len(signal) + len(response) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(response, size), size)
    wet = wet[peak : peak + len(signal)]
    scale = np.sqrt((np.mean(signal**2) + 1e-10) / (np.mean(wet**2) + 1e-10))
    return np.asarray(wet * scale, dtype=np.float32)


def fit_length(signal: Signal, length: int) -> Signal:
    """Cut or zero-pad `signal` at its end to `length` samples."""
    if len(signal) >= length:
        return signal[:length]
    return np.asarray(np.pad(signal, (0, length - len(signal))), dtype=np.float32)


def trim_quiet(signal: Signal, sample_rate: int, below_db: float = 30.0) -> Signal:
    """Cut off what lies before the first and after the last 10 ms near the loudest ones.

    Args:
        signal: Mono samples.
        sample_rate: Hz.
        below_db: Stretches this far below the loudest one count as quiet.

    Returns:
        A part of the signal, never empty unless the signal is.
    """
    step = max(1, sample_rate // 100)
    whole = len(signal) // step
    if whole < 2:
        return signal
    power = np.mean(signal[: whole * step].reshape(whole, step) ** 2, axis=1)
    loud = np.flatnonzero(power >= np.max(power) * 10 ** (-below_db / 10))
    return signal[int(loud[0]) * step : (int(loud[-1]) + 1) * step]


def augment_signal(
    signal: Signal,
    sample_rate: int,
    config: AugmentConfig,
    random: np.random.Generator,
    noises: Sequence[Signal] = (),
    responses: Sequence[Signal] = (),
) -> Signal:
    """Apply trim, speed, room, noise, band limit and gain in that order, each if drawn.

    Args:
        signal: Mono samples.
        sample_rate: Hz.
        config: Probabilities and ranges.
        random: The only source of randomness.
        noises: Noise recordings at the same rate.
        responses: Room impulse responses at the same rate.

    Returns:
        A new signal; its length differs where the speed changed.
    """
    if config.trim_prob and random.random() < config.trim_prob:
        signal = trim_quiet(signal, sample_rate)
    if random.random() < config.speed_prob:
        signal = change_speed(signal, float(random.uniform(*config.speed)))
    if responses and random.random() < config.reverb_prob:
        signal = reverberate(signal, responses[int(random.integers(len(responses)))])
    if noises and random.random() < config.noise_prob:
        noise = noises[int(random.integers(len(noises)))]
        signal = add_noise(signal, noise, float(random.uniform(*config.snr_db)), random)
    if random.random() < config.band_limit_prob:
        signal = band_limit(signal, sample_rate)
    gain = 10 ** (float(random.uniform(*config.gain_db)) / 20)
    return np.asarray(np.clip(signal * np.float32(gain), -1.0, 1.0), dtype=np.float32)


def warp_features(
    features: NDArray[np.float32], formant: float, tempo: float
) -> NDArray[np.float32]:
    """Stretch the band axis by `formant` and the time axis by `1 / tempo`, by interpolation.

    Args:
        features: `[frames, bands]`.
        formant: Factor on the band index; above 1 moves formants up, as a shorter vocal tract does.
        tempo: Above 1 gives fewer frames.

    Returns:
        `[round(frames / tempo), bands]`, at least one frame.
    """
    frames, bands = features.shape
    source = np.clip(np.arange(bands) / formant, 0, bands - 1)
    low = np.floor(source).astype(int)
    part = (source - low).astype(np.float32)
    warped = features[:, low] * (1 - part) + features[:, np.minimum(low + 1, bands - 1)] * part
    count = max(1, round(frames / tempo))
    if count == frames:
        return np.asarray(warped, dtype=np.float32)
    position = np.linspace(0, frames - 1, count)
    first = np.floor(position).astype(int)
    rest = (position - first).astype(np.float32)[:, None]
    after = np.minimum(first + 1, frames - 1)
    return np.asarray(warped[first] * (1 - rest) + warped[after] * rest, dtype=np.float32)


def mask_features(
    features: NDArray[np.float32], config: AugmentConfig, random: np.random.Generator
) -> NDArray[np.float32]:
    """Zero random stretches of time and random bands (SpecAugment, arXiv 1904.08779, section 2).

    Args:
        features: `[frames, bands]`, normalised, so zero is the mean.
        config: Number and size of the masks.
        random: Places the masks.
    """
    masked = features.copy()
    frames, bands = masked.shape
    for _ in range(config.time_masks):
        width = int(random.integers(0, max(1, int(frames * config.time_mask_rate)) + 1))
        start = int(random.integers(0, max(1, frames - width + 1)))
        masked[start : start + width] = 0.0
    for _ in range(config.band_masks):
        width = int(random.integers(0, config.band_mask_width + 1))
        start = int(random.integers(0, max(1, bands - width + 1)))
        masked[:, start : start + width] = 0.0
    return masked


def augment_features(
    features: NDArray[np.float32], config: AugmentConfig, random: np.random.Generator, step: int
) -> NDArray[np.float32]:
    """Warp and, from `config.mask_from_step` on, mask features.

    Args:
        features: `[frames, bands]`, normalised log-mel.
        config: Ranges.
        random: The only source of randomness.
        step: Training step.
    """
    formant = float(random.uniform(1 - config.formant, 1 + config.formant))
    tempo = float(random.uniform(*config.tempo))
    warped = warp_features(features, formant, tempo)
    if config.tilt_db:
        tilt = float(random.uniform(-config.tilt_db, config.tilt_db)) / config.unit_db
        warped = warped + np.linspace(-tilt / 2, tilt / 2, warped.shape[1], dtype=np.float32)
    if step >= config.mask_from_step:
        warped = mask_features(warped, config, random)
    return warped
