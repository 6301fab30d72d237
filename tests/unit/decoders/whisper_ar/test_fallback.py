from __future__ import annotations

import pytest

from speechadapt.decoders.whisper_ar.fallback import decode_with_fallback, judge
from speechadapt.decoders.whisper_ar.generate import Draft
from speechadapt.decoders.whisper_ar.options import WhisperOptions

GOOD, BAD = -0.1, -2.0


def draft(log_prob: float = GOOD, no_speech: float | None = 0.0, temperature: float = 0.0) -> Draft:
    return Draft((1,), (log_prob, log_prob), no_speech, temperature)


@pytest.mark.parametrize(
    ("log_prob", "no_speech", "text", "failed", "silent", "flags"),
    [
        (GOOD, 0.0, "a text", False, False, ()),
        (BAD, 0.0, "a text", True, False, ("logprob",)),
        (GOOD, 0.0, "na " * 90, True, False, ("compression",)),
        (BAD, 0.0, "na " * 90, True, False, ("compression", "logprob")),
        (BAD, 0.9, "a text", False, True, ("no_speech",)),
        (GOOD, 0.9, "a text", False, False, ()),
        (BAD, None, "a text", True, False, ("logprob",)),
    ],
)
def test_drafts_are_held_against_the_thresholds(log_prob, no_speech, text, failed, silent, flags):
    verdict = judge(draft(log_prob, no_speech), text, WhisperOptions())
    assert (verdict.failed, verdict.silent, verdict.flags) == (failed, silent, flags)


def test_thresholds_of_none_never_fail():
    options = WhisperOptions(
        compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None
    )
    verdict = judge(draft(BAD, 0.99), "na " * 90, options)
    assert (verdict.failed, verdict.silent, verdict.flags) == (False, False, ())


def test_just_the_failing_rows_are_decoded_again():
    asked: list[tuple[list[int], float]] = []

    def run(rows, temperature):
        asked.append((list(rows), temperature))
        settled = {0: 0.0, 1: 0.4, 2: 0.0, 3: 9.9}
        return [
            draft(GOOD if temperature >= settled[row] else BAD, temperature=temperature)
            for row in rows
        ]

    results = decode_with_fallback(4, run, lambda _: "a text", WhisperOptions())
    assert [rows for rows, _ in asked] == [[0, 1, 2, 3], [1, 3], [1, 3], [3], [3], [3]]
    assert [temperature for _, temperature in asked] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert [result.temperature for result, _ in results] == [0.0, 0.4, 0.0, 1.0]
    assert [verdict.failed for _, verdict in results] == [False, False, False, True]


def test_silence_is_not_decoded_again():
    calls: list[float] = []

    def run(rows, temperature):
        calls.append(temperature)
        return [draft(BAD, 0.95, temperature) for _ in rows]

    (result,) = decode_with_fallback(1, run, lambda _: "thank you", WhisperOptions())
    assert calls == [0.0]
    assert result[1].silent
