"""The comparison of decoders: what was asked for, measured and put into one report."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from speechadapt.audio.margin import add_margin
from speechadapt.bench.clips import Clip, batches_of, bucket_of, read_clips
from speechadapt.bench.options import DecoderBench
from speechadapt.bench.passes import Measured, measure
from speechadapt.bench.random_weights import GEOMETRIES, make, random_settings, random_sides
from speechadapt.bench.reuse import compare_reuse
from speechadapt.bench.sides import trained_sides
from speechadapt.core.errors import ConfigError, ShapeError
from speechadapt.core.seed import generator
from speechadapt.metrics.report import score_set, to_json
from speechadapt.metrics.speed import describe_environment
from speechadapt.metrics.wer import Pair

Report = dict[str, Any]


def compare_decoders(options: DecoderBench) -> Report:
    """Run a comparison.

    Args:
        options: What was asked for.

    Returns:
        JSON types: date, environment, and `sides` (of trained weights) or `lengths`, `candidates`
        and `reuse` (of random ones). Seconds are of a whole pass over the clips, by round.

    Raises:
        SpeechadaptError: A model, a set or a clip cannot be used.
    """
    torch.set_num_threads(options.threads)
    place = describe_environment(options.device, options.dtype, options.batch_size)
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "environment": asdict(place) | {"line": place.line},
        "rounds": options.rounds,
    }
    if options.random is None:
        return facts | _trained(options)
    return facts | _random(options)


def _trained(options: DecoderBench) -> Report:
    sides, margin_s, missing = trained_sides(options)
    encoder = sides[0].encoder
    root = options.data or os.environ.get("SPEECHADAPT_DATA", "")
    if options.sets and not root:
        raise ConfigError("--sets names sets of the data pack: give --data or SPEECHADAPT_DATA.")
    clips = read_clips(options.sets, Path(root), encoder.sample_rate, options.limit)
    longest = max(clips, key=lambda clip: clip.seconds)
    window = (encoder.window_s or 30.0) - 2 * margin_s
    if longest.seconds > window:
        raise ShapeError(
            f"'{longest.id}' lasts {longest.seconds:.1f} s, the decoders take clips of "
            f"{window:g} s at most. Name other --sets."
        )

    def waveform(clip: Clip) -> torch.Tensor:
        padded = add_margin(clip.waveform, encoder.sample_rate, margin_s)
        return torch.from_numpy(np.ascontiguousarray(padded))

    found = measure(sides, batches_of(clips, options.batch_size), waveform, options.rounds)
    return {
        "model": options.model,
        "clips": len(clips),
        "audio_s": round(sum(clip.seconds for clip in clips), 2),
        "sets": list(dict.fromkeys(clip.set for clip in clips)),
        "missing": missing,
        "sides": [_side(one, clips, options.normaliser) for one in found],
    }


def _side(one: Measured, clips: Sequence[Clip], normaliser: str) -> Report:
    """Return the times and scores of a side on trained weights."""
    tokens = sum(len(text.tokens) for text in one.written.values())
    words = sum(len(text.text.split()) for text in one.written.values())
    sets = list(dict.fromkeys(clip.set for clip in clips))
    ranges = list(one.seconds)
    return _times(one, sum(clip.seconds for clip in clips)) | {
        "tokens": tokens,
        "words": words,
        "tokens_per_s": round(tokens / median(one.whole.total), 2),
        "sets": [_scores(name, one, _in_set(clips, name), normaliser) for name in sets],
        "ranges": [
            _scores(name, one, _in_range(clips, name), normaliser)
            | {"seconds": _medians(one.seconds[name].encode, one.seconds[name].decode)}
            for name in ranges
        ],
    }


def _in_set(clips: Sequence[Clip], name: str) -> list[Clip]:
    return [clip for clip in clips if clip.set == name]


def _in_range(clips: Sequence[Clip], name: str) -> list[Clip]:
    return [clip for clip in clips if clip.bucket == name]


def _scores(name: str, one: Measured, clips: Sequence[Clip], normaliser: str) -> Report:
    pairs = [
        Pair(clip.id, clip.text, one.written[clip.id].text, clip.speaker, clip.language)
        for clip in clips
    ]
    scored = score_set(name, pairs, normaliser=normaliser)
    kept = ("set", "items", "wer", "wer_interval")
    values = {key: value for key, value in to_json(scored).items() if key in kept}
    rates = [item.words.rate for item in scored.score.items]
    return values | {"mean_utterance_wer": round(mean(rates), 6) if rates else None}


def _random(options: DecoderBench) -> Report:
    geometry = GEOMETRIES[str(options.random)]
    longest = options.lengths_s[-1]
    if longest > geometry.window_s:
        raise ConfigError(
            f"--seconds {longest} was asked of --random {options.random}, whose window is "
            f"{geometry.window_s} s. Name shorter ones: --seconds {geometry.window_s}."
        )
    model = make(geometry, options.tokens_per_s, options.device, options.dtype)
    found: Report = {"random": options.random, "parameters": model.parameters()}

    def rows(seconds: int, heads: Sequence[bool]) -> list[Report]:
        tokens = max(1, round(options.tokens_per_s * seconds))
        sides = random_sides(model, tokens, random_settings(options, heads))
        clips = [_noise(number, seconds) for number in range(options.batch_size)]
        batches = {bucket_of(float(seconds)): [clips]}
        measured = measure(sides, batches, _samples, options.rounds)
        return [_random_side(one, seconds, tokens, len(clips)) for one in measured]

    if "length" in options.part_names:
        found["length"] = [row for seconds in options.lengths_s for row in rows(seconds, [True])]
        found["crossover"] = crossovers(found["length"])
    if "candidates" in options.part_names:
        found["candidates"] = rows(longest, [True, False])
    if "reuse" in options.part_names:
        found["reuse"] = compare_reuse(model, options)
    return found


def crossovers(rows: Sequence[Report]) -> list[Report]:
    """Say from which length on a side costs less than greedy autoregressive decoding.

    Args:
        rows: Sides at several lengths, the autoregressive one among them.

    Returns:
        A row for each diffusion side; `from_s` lies on a straight line between the lengths
        measured, is the shortest one where the side costs less everywhere, and None where it costs
        more at the longest.
    """
    costs: dict[str, dict[float, float]] = {}
    for row in rows:
        costs.setdefault(row["side"], {})[row["clip_s"]] = row["median_s"]["total"]
    base = next(values for name, values in costs.items() if name.startswith("autoregressive"))
    lengths = [float(one) for one in sorted(base)]
    found = []
    for name, values in costs.items():
        if not name.startswith("diffusion"):
            continue
        ahead = [values[one] - base[one] for one in lengths]
        found.append({"side": name, "from_s": _zero(lengths, ahead)})
    return found


def _zero(lengths: Sequence[float], above: Sequence[float]) -> float | None:
    """Return from where on a broken line stays at or below zero; None where it ends above."""
    if above[-1] > 0:
        return None
    for at in range(len(above) - 1, 0, -1):
        if above[at - 1] > 0:
            share = above[at - 1] / (above[at - 1] - above[at])
            return round(lengths[at - 1] + share * (lengths[at] - lengths[at - 1]), 2)
    return float(lengths[0])


def _random_side(one: Measured, seconds: int, tokens: int, clips: int) -> Report:
    for text in one.written.values():
        written = len(text.details.get("token_probabilities", ()))
        if one.side.settings["decoder"] == "whisper_ar" and written != tokens:
            raise ShapeError(f"{one.side.name} was to write {tokens} tokens and wrote {written}.")
    said = {
        "clip_s": seconds,
        "tokens": tokens,
        "tokens_per_s": round(clips * tokens / median(one.whole.total), 2),
    }
    details = next(iter(one.written.values())).details
    if "positions" in details:
        said |= {"positions": details["positions"], "passes": details["passes"]}
    return _times(one, float(seconds * clips)) | said


def _times(one: Measured, audio_s: float) -> Report:
    whole = one.whole
    return {
        "side": one.side.name,
        "settings": dict(one.side.settings),
        "median_s": _medians(whole.encode, whole.decode),
        "seconds": {
            "encode": [round(value, 4) for value in whole.encode],
            "decode": [round(value, 4) for value in whole.decode],
        },
        "rtf": round(median(whole.total) / audio_s, 5),
    }


def _medians(encode: Sequence[float], decode: Sequence[float]) -> dict[str, float]:
    total = [sum(pair) for pair in zip(encode, decode, strict=True)]
    parts = {"encode": encode, "decode": decode, "total": total}
    return {name: round(median(values), 4) for name, values in parts.items()}


def _noise(number: int, seconds: int) -> Clip:
    signal = 0.1 * generator("bench", number).standard_normal(seconds * 16000)
    return Clip(str(number), "noise", signal.astype(np.float32), float(seconds), None)


def _samples(clip: Clip) -> torch.Tensor:
    return torch.from_numpy(clip.waveform)
