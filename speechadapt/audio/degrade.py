"""Degradation of clean speech, seeded: what a restorer learns to undo.

A signal passes through stages in the order of `Degradation.order`, each with its probability. Every
stage has a random stream of its own, so changing one setting leaves the draws of the other stages
alone. What was applied is returned as JSON values.

Nothing here moves the speech in time: rooms are cut at the direct path and codecs at their delay,
so the signal that came in is the clean target of what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np

from speechadapt.audio.augment import Signal, add_noise, band_limit, reverberate
from speechadapt.audio.degrade_codec import codec_problem, through_codec
from speechadapt.audio.degrade_room import draw_room, room_response
from speechadapt.core.errors import CatalogError, near_misses
from speechadapt.core.limits import (
    Interval,
    NotNegative,
    PositiveInterval,
    Probability,
    Range,
)

StageName = Literal["reverb", "noise", "band", "clip", "codec", "loss", "level", "offset"]
ClipKind = Literal["soft", "hard", "quantile"]
Applied = list[dict[str, Any]]
_STAGES: tuple[StageName, ...] = (
    "reverb",
    "noise",
    "band",
    "clip",
    "codec",
    "loss",
    "level",
    "offset",
)


@dataclass(frozen=True)
class Degradation:
    """Order, probabilities and ranges of the stages.

    Args:
        order: Stages in the order they act; those not named never do.
        untouched_prob: Share of signals that pass unchanged.
        reverb_prob: Probability of a room.
        simulated_prob: Share of rooms that are simulated where there are measured ones.
        side_m: Shortest and longest floor side of a simulated room.
        height_m: Lowest and highest ceiling.
        rt60_s: Shortest and longest reverberation time of a simulated room.
        noise_prob: Probability of added noise; without noise recordings none is added.
        snr_db: Lowest and highest signal-to-noise ratio.
        band_prob: Probability of a narrower band.
        band_rates: Sample rates in Hz to pass through; those at or above the signal's do nothing.
        clip_prob: Probability of clipping.
        clip_kinds: Kinds drawn from: `soft` and `hard` after a gain, `quantile` at a share of the
            signal's own samples.
        clip_gain: Lowest and highest gain, the peak at full scale before it.
        clip_share: Least and most samples clipped on either side, as a share, by `quantile`.
        codec_prob: Probability of a codec.
        codecs: Codecs drawn from (see `degrade_codec`).
        loss_prob: Probability of lost packets.
        loss_s: Shortest and longest gap.
        losses_per_s: Gaps for each second of signal, on average.
        level_prob: Probability of a changed level.
        level_db: Lowest and highest level change.
        offset_prob: Probability of a constant offset.
        offset: Lowest and highest offset, full scale 1.0.
    """

    order: tuple[StageName, ...] = _STAGES
    untouched_prob: Probability = 0.0
    reverb_prob: Probability = 0.5
    simulated_prob: Probability = 0.5
    side_m: PositiveInterval = (2.0, 10.0)
    height_m: PositiveInterval = (2.0, 5.0)
    rt60_s: PositiveInterval = (0.2, 0.5)
    noise_prob: Probability = 1.0
    snr_db: Interval = (5.0, 30.0)
    band_prob: Probability = 0.0
    band_rates: tuple[int, ...] = (8000,)
    clip_prob: Probability = 0.0
    clip_kinds: tuple[ClipKind, ...] = ("soft", "hard")
    clip_gain: PositiveInterval = (1.2, 2.0)
    clip_share: Annotated[tuple[float, float], Range(0.0, 0.5)] = (0.0, 0.1)
    codec_prob: Probability = 0.0
    codecs: tuple[str, ...] = ("mp3:64",)
    loss_prob: Probability = 0.0
    loss_s: PositiveInterval = (0.02, 0.2)
    losses_per_s: NotNegative = 0.3
    level_prob: Probability = 0.0
    level_db: Interval = (-10.0, 6.0)
    offset_prob: Probability = 0.0
    offset: Interval = (-0.05, 0.05)

    def problems(self) -> list[str]:
        """Say which codecs, rates or stages do not exist."""
        found = [problem for codec in self.codecs if (problem := codec_problem(codec))]
        found += [
            f"band_rates must be above 0 Hz, got {rate}." for rate in self.band_rates if rate < 1
        ]
        if len(set(self.order)) < len(self.order):
            found.append(f"order names a stage twice: {', '.join(self.order)}.")
        for name in ("band_rates", "clip_kinds", "codecs"):
            if not getattr(self, name):
                found.append(f"{name} is empty; set the stage's probability to 0 instead.")
        return found


# Ranges of the public re-implementations of Miipher (arXiv 2505.04457; how often a codec acts is
# not published) and of Sidon's released configuration (arXiv 2509.17052).
PRESETS: Mapping[str, Degradation] = {
    "miipher": Degradation(
        order=("noise", "reverb", "codec"),
        codec_prob=0.5,
        codecs=(
            "mp3:16",
            "mp3:32",
            "mp3:64",
            "mp3:128",
            "vorbis:0",
            "vorbis:0.1",
            "alaw",
            "opus:16",
        ),
    ),
    "sidon": Degradation(
        order=("reverb", "noise", "band", "clip", "codec", "loss"),
        side_m=(2.0, 20.0),
        rt60_s=(0.1, 2.0),
        noise_prob=0.5,
        snr_db=(-5.0, 20.0),
        band_prob=0.5,
        band_rates=(8000, 16000, 22050, 24000, 44100, 48000),
        clip_prob=0.5,
        clip_kinds=("quantile",),
        codec_prob=0.5,
        codecs=("mp3:16", "mp3:32", "mp3:64", "mp3:96", "mp3:128"),
        loss_prob=0.5,
    ),
    "telephone": Degradation(
        order=("reverb", "noise", "level", "band", "clip", "codec", "loss"),
        reverb_prob=0.2,
        noise_prob=0.7,
        snr_db=(5.0, 25.0),
        level_prob=1.0,
        band_prob=1.0,
        clip_prob=0.2,
        codec_prob=0.8,
        codecs=("mulaw", "alaw", "opus:8"),
        loss_prob=0.2,
    ),
}


@dataclass(frozen=True)
class Degraded:
    """A degraded signal and how it came about.

    Args:
        signal: As long as what came in, float32; it may exceed full scale.
        applied: One record a stage that acted: `stage` and its drawn parameters, JSON values.
    """

    signal: Signal
    applied: Applied


@dataclass(frozen=True)
class _Sounds:
    sample_rate: int
    noises: Sequence[Signal]
    responses: Sequence[Signal]


_Stage = Callable[
    [Signal, Degradation, np.random.Generator, _Sounds], tuple[Signal, dict[str, Any]] | None
]


def preset(name: str, **changes: Any) -> Degradation:
    """Return a preset with some of its settings changed.

    Args:
        name: `miipher`, `sidon` or `telephone`.
        changes: Fields of `Degradation`.

    Raises:
        CatalogError: There is no such preset.
    """
    if name not in PRESETS:
        raise CatalogError(f"there is no degradation '{name}'.{near_misses(name, PRESETS)}")
    return replace(PRESETS[name], **changes)


def degrade(
    signal: Signal,
    sample_rate: int,
    config: Degradation,
    random: np.random.Generator,
    noises: Sequence[Signal] = (),
    responses: Sequence[Signal] = (),
) -> Degraded:
    """Degrade a clean signal; equal generator states give equal bytes.

    Args:
        signal: Mono float32 samples.
        sample_rate: Hz.
        config: Order, probabilities and ranges.
        random: The only source of randomness.
        noises: Noise recordings at the same rate.
        responses: Measured room impulse responses at the same rate.

    Returns:
        The degraded signal, aligned with `signal` and as long, and what was applied.
    """
    untouched = float(random.random()) < config.untouched_prob
    streams = {name: np.random.default_rng(int(random.integers(2**63))) for name in _STAGES}
    applied: Applied = []
    if untouched or not len(signal):
        return Degraded(signal, applied)
    sounds = _Sounds(sample_rate, noises, responses)
    for name in config.order:
        stream = streams[name]
        if float(stream.random()) >= getattr(config, f"{name}_prob"):
            continue
        done = _ACTS[name](signal, config, stream, sounds)
        if done is not None:
            signal = np.asarray(done[0], dtype=np.float32)
            applied.append({"stage": name, **done[1]})
    return Degraded(signal, applied)


def _reverb(
    signal: Signal, config: Degradation, random: np.random.Generator, sounds: _Sounds
) -> tuple[Signal, dict[str, Any]]:
    simulated = float(random.random()) < config.simulated_prob
    if sounds.responses and not simulated:
        index = int(random.integers(len(sounds.responses)))
        return reverberate(signal, sounds.responses[index]), {"response": index}
    room = draw_room(random, config.side_m, config.height_m, config.rt60_s)
    response, direct = room_response(room, sounds.sample_rate, random)
    return reverberate(signal, response, direct), {"room": room.to_json()}


def _noise(
    signal: Signal, config: Degradation, random: np.random.Generator, sounds: _Sounds
) -> tuple[Signal, dict[str, Any]] | None:
    snr_db = round(float(random.uniform(*config.snr_db)), 3)
    if not sounds.noises:
        return None
    index = int(random.integers(len(sounds.noises)))
    noisy = add_noise(signal, sounds.noises[index], snr_db, random)
    return noisy, {"noise": index, "snr_db": snr_db}


def _band(
    signal: Signal, config: Degradation, random: np.random.Generator, sounds: _Sounds
) -> tuple[Signal, dict[str, Any]] | None:
    rate = config.band_rates[int(random.integers(len(config.band_rates)))]
    if rate >= sounds.sample_rate:
        return None
    return band_limit(signal, sounds.sample_rate, rate), {"rate": rate}


def _clip(
    signal: Signal, config: Degradation, random: np.random.Generator, sounds: _Sounds
) -> tuple[Signal, dict[str, Any]] | None:
    kind = config.clip_kinds[int(random.integers(len(config.clip_kinds)))]
    gain = round(float(random.uniform(*config.clip_gain)), 4)
    shares = [round(float(share), 5) for share in random.uniform(*config.clip_share, 2)]
    if kind == "quantile":
        low, high = (float(v) for v in np.quantile(signal, [shares[0], 1 - shares[1]]))
        return np.clip(signal, low, high), {"kind": kind, "below": shares[0], "above": shares[1]}
    peak = float(np.abs(signal).max())
    if peak == 0.0:
        return None
    driven = signal * np.float32(gain / peak)
    bent = np.tanh(driven) if kind == "soft" else np.clip(driven, -1.0, 1.0)
    return bent * np.float32(peak), {"kind": kind, "gain": gain}


def _codec(
    signal: Signal, config: Degradation, random: np.random.Generator, sounds: _Sounds
) -> tuple[Signal, dict[str, Any]]:
    codec = config.codecs[int(random.integers(len(config.codecs)))]
    peak = float(np.abs(signal).max())
    # codecs clip at full scale, which is another stage's business
    scale = np.float32(max(1.0, peak))
    coded = through_codec(signal / scale, sounds.sample_rate, codec)
    return coded * scale, {"codec": codec}


def _loss(
    signal: Signal, config: Degradation, random: np.random.Generator, sounds: _Sounds
) -> tuple[Signal, dict[str, Any]] | None:
    seconds = len(signal) / sounds.sample_rate
    gaps: list[list[float]] = []
    broken = signal.copy()
    for _ in range(int(random.poisson(config.losses_per_s * seconds))):
        start_s = round(float(random.uniform(0, seconds)), 4)
        length_s = round(float(random.uniform(*config.loss_s)), 4)
        start = int(start_s * sounds.sample_rate)
        broken[start : start + int(length_s * sounds.sample_rate)] = 0.0
        gaps.append([start_s, length_s])
    return (broken, {"gaps_s": sorted(gaps)}) if gaps else None


def _level(
    signal: Signal, config: Degradation, random: np.random.Generator, sounds: _Sounds
) -> tuple[Signal, dict[str, Any]]:
    gain_db = round(float(random.uniform(*config.level_db)), 3)
    return signal * np.float32(10 ** (gain_db / 20)), {"gain_db": gain_db}


def _offset(
    signal: Signal, config: Degradation, random: np.random.Generator, sounds: _Sounds
) -> tuple[Signal, dict[str, Any]]:
    offset = round(float(random.uniform(*config.offset)), 5)
    return signal + np.float32(offset), {"offset": offset}


_ACTS: Mapping[StageName, _Stage] = {
    "reverb": _reverb,
    "noise": _noise,
    "band": _band,
    "clip": _clip,
    "codec": _codec,
    "loss": _loss,
    "level": _level,
    "offset": _offset,
}
