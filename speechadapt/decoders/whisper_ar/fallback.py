"""Whisper's temperature fallback, clip by clip: just the clips that fail are decoded again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from speechadapt.decoders.base import compression_ratio
from speechadapt.decoders.whisper_ar.generate import Draft
from speechadapt.decoders.whisper_ar.options import WhisperOptions

Pass = Callable[[Sequence[int], float], Sequence[Draft]]


@dataclass(frozen=True)
class Verdict:
    """How a draft stands against the thresholds.

    Args:
        failed: The next temperature should be tried.
        silent: Nobody speaks.
        flags: Which thresholds it broke (`compression`, `logprob`), `no_speech` for silence.
    """

    failed: bool
    silent: bool
    flags: tuple[str, ...]


def judge(draft: Draft, text: str, options: WhisperOptions) -> Verdict:
    """Hold a draft against the thresholds.

    A draft that is silence by the no-speech probability and the log-probability together did not
    fail, whatever its text.

    Args:
        draft: What a pass wrote.
        text: Its spelling.
        options: The thresholds.

    Source: the rules of openai-whisper's `transcribe`.
    """
    ratio, logprob = options.compression_ratio_threshold, options.logprob_threshold
    repeats = ratio is not None and compression_ratio(text) > ratio
    unlikely = logprob is not None and draft.avg_logprob < logprob
    quiet = (
        options.no_speech_threshold is not None
        and draft.no_speech_prob is not None
        and draft.no_speech_prob > options.no_speech_threshold
    )
    silent = quiet and (logprob is None or unlikely)
    broken = (("compression", repeats), ("logprob", unlikely))
    flags = ("no_speech",) if silent else tuple(name for name, is_so in broken if is_so)
    return Verdict((repeats or unlikely) and not silent, silent, flags)


def decode_with_fallback(
    count: int, run: Pass, spell: Callable[[Draft], str], options: WhisperOptions
) -> list[tuple[Draft, Verdict]]:
    """Decode clips at the first temperature, and those that fail at the next ones.

    Args:
        count: Number of clips.
        run: Decodes the clips of the given rows at a temperature.
        spell: Spells a draft.
        options: Temperatures and thresholds.

    Returns:
        The last draft of each clip and how it stands, in the order of the clips.
    """
    results: dict[int, tuple[Draft, Verdict]] = {}
    pending = list(range(count))
    for temperature in options.temperature:
        if not pending:
            break
        for row, draft in zip(pending, run(pending, temperature), strict=True):
            results[row] = (draft, judge(draft, spell(draft), options))
        pending = [row for row in pending if results[row][1].failed]
    return [results[row] for row in range(count)]
