"""Guards against invented text: each names a reason for doubt and changes nothing.

    no_speech          nobody spoke, by voice activity or by the decoder's own probability
    compression        the text repeats itself so much that zlib shrinks it beyond belief
    ngram_loop         one phrase over and over without anything between
    chars_per_second   more letters than anybody says in that time

Source: thresholds and the compression measure of `no_speech` and `compression` are those of Whisper
(arXiv:2212.04356, section 4.5).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from speechadapt.text.normalise import base_code, policy_of

GUARDS = ("no_speech", "compression", "ngram_loop", "chars_per_second")

# Letters and digits per second of speech nobody goes beyond for long; a fast reader reaches about
# two thirds of it. Writing systems with a sign per syllable or word need fewer signs.
_CHARACTERS_PER_SECOND = (
    *(("zh", 14.0), ("yue", 14.0), ("cmn", 14.0), ("ja", 18.0), ("ko", 16.0)),
    ("", 32.0),
)


class Flag(NamedTuple):
    """A reason for doubt.

    Args:
        name: One of `GUARDS`.
        reason: What was measured and which limit it passed, for a person.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class GuardThresholds:
    """When a guard speaks.

    Args:
        no_speech_prob: The decoder's probability of no speech above which a text is doubted.
        avg_logprob: A text at least this probable (mean natural logarithm per token) is believed
            in spite of `no_speech_prob`.
        min_speech_s: Seconds of speech by voice activity below which nobody spoke.
        compression_ratio: UTF-8 bytes over zlib bytes above which a text is doubted.
        loop_repeats: Times a phrase follows itself directly, counting the first, to be a loop.
        loop_units: Words (characters in scripts without spaces) a loop spans at least, so that
            four zeros in a telephone number are no loop.
        loop_longest: Longest phrase looked for, in the same units.
        characters_per_second: Language codes and their limits; the empty code is for all others.
        shortest_text: Letters below which the speaking rate says nothing.
    """

    no_speech_prob: float = 0.6
    avg_logprob: float = -1.0
    min_speech_s: float = 0.05
    compression_ratio: float = 2.4
    loop_repeats: int = 4
    loop_units: int = 8
    loop_longest: int = 16
    characters_per_second: tuple[tuple[str, float], ...] = _CHARACTERS_PER_SECOND
    shortest_text: int = 8


@dataclass(frozen=True)
class Evidence:
    """What is known about a text besides its letters; None where nobody measured it.

    Args:
        duration_s: Seconds of audio the text was written for.
        speech_s: Seconds of speech in it by voice activity detection.
        no_speech_prob: The decoder's probability that nobody speaks.
        avg_logprob: Mean log-probability per token (natural logarithm).
        language: BCP 47 code.
    """

    duration_s: float | None = None
    speech_s: float | None = None
    no_speech_prob: float | None = None
    avg_logprob: float | None = None
    language: str | None = None


_DEFAULT = GuardThresholds()


def check_text(
    text: str, evidence: Evidence, thresholds: GuardThresholds = _DEFAULT
) -> tuple[Flag, ...]:
    """Run every guard over one text.

    Args:
        text: A transcript or a segment of one.
        evidence: What else is known.
        thresholds: When to speak.

    Returns:
        The flags in the order of `GUARDS`; empty where nothing is doubtful.
    """
    found = (
        check_no_speech(evidence, thresholds),
        check_compression(text, thresholds),
        check_ngram_loop(text, evidence.language, thresholds),
        check_speaking_rate(text, evidence, thresholds),
    )
    return tuple(flag for flag in found if flag is not None)


def check_no_speech(evidence: Evidence, thresholds: GuardThresholds = _DEFAULT) -> Flag | None:
    """Doubt a text where nobody spoke.

    Voice activity decides alone where it heard nothing. The decoder's probability counts only
    where the text itself is improbable or its probability unknown (Whisper's rule).
    """
    speech_s, probability = evidence.speech_s, evidence.no_speech_prob
    if speech_s is not None and speech_s < thresholds.min_speech_s:
        return Flag(
            "no_speech",
            f"{speech_s:.2f} s of speech by voice activity, at least "
            f"{thresholds.min_speech_s:.2f} s wanted",
        )
    believed = evidence.avg_logprob is not None and evidence.avg_logprob >= thresholds.avg_logprob
    if probability is not None and probability > thresholds.no_speech_prob and not believed:
        return Flag(
            "no_speech",
            f"probability of no speech {probability:.2f} above {thresholds.no_speech_prob:.2f}",
        )
    return None


def compression_ratio(text: str) -> float:
    """Divide the UTF-8 bytes of `text` by its zlib-compressed bytes (Whisper's definition).

    Returns:
        0.0 for an empty text; below 1 for a short one; large where text repeats itself.
    """
    data = text.encode("utf-8", "surrogateescape")
    return len(data) / len(zlib.compress(data))


def check_compression(text: str, thresholds: GuardThresholds = _DEFAULT) -> Flag | None:
    """Doubt a text that compresses too well."""
    ratio = compression_ratio(text)
    if ratio > thresholds.compression_ratio:
        return Flag(
            "compression",
            f"compression ratio {ratio:.2f} above {thresholds.compression_ratio:.2f}",
        )
    return None


def check_ngram_loop(
    text: str, language: str | None = None, thresholds: GuardThresholds = _DEFAULT
) -> Flag | None:
    """Doubt a text in which one phrase directly follows itself again and again.

    Words are compared in lower case without the punctuation around them; in languages without
    spaces between words, characters are compared instead.
    """
    unspaced = policy_of(language).headline == "cer"
    units = _characters(text) if unspaced else _words(text)
    for size in range(1, thresholds.loop_longest + 1):
        repeats, start = _longest_run(units, size)
        if repeats >= thresholds.loop_repeats and repeats * size >= thresholds.loop_units:
            phrase = ("" if unspaced else " ").join(units[start : start + size])
            return Flag("ngram_loop", f"{phrase!r} {repeats} times in a row")
    return None


def check_speaking_rate(
    text: str, evidence: Evidence, thresholds: GuardThresholds = _DEFAULT
) -> Flag | None:
    """Doubt a text with more letters and digits than can be said in its time.

    The time is the seconds of speech where voice activity gave some, else the duration.
    """
    seconds = evidence.speech_s or evidence.duration_s
    letters = len(_characters(text))
    if seconds is None or letters < thresholds.shortest_text:
        return None
    limits = dict(thresholds.characters_per_second)
    limit = limits.get(base_code(evidence.language), limits.get("", math.inf))
    rate = letters / seconds if seconds > 0 else math.inf
    if rate > limit:
        return Flag("chars_per_second", f"{rate:.1f} characters per second above {limit:.0f}")
    return None


def _longest_run(units: list[str], size: int) -> tuple[int, int]:
    """Return how often a phrase of `size` units repeats in a row at most, and where it starts."""
    best, best_start = 1, 0
    matched = 0
    for position in range(size, len(units)):
        matched = matched + 1 if units[position] == units[position - size] else 0
        repeats = matched // size + 1
        if repeats > best:
            best, best_start = repeats, position + 1 - repeats * size
    return best, best_start


def _words(text: str) -> list[str]:
    words = ("".join(c for c in word if c.isalnum()) for word in text.lower().split())
    return [word for word in words if word]


def _characters(text: str) -> list[str]:
    return [character for character in text.lower() if character.isalnum()]
