from __future__ import annotations

import zlib
from multiprocessing.reduction import ForkingPickler

import pytest

from speechadapt.text.guard import (
    GUARDS,
    Evidence,
    GuardThresholds,
    check_compression,
    check_ngram_loop,
    check_no_speech,
    check_speaking_rate,
    check_text,
    compression_ratio,
)

SENTENCE = "i want a dark roast cappuccino and two small cups of tea"


def names(text: str, evidence: Evidence) -> list[str]:
    return [flag.name for flag in check_text(text, evidence)]


def test_an_ordinary_sentence_raises_no_flag() -> None:
    evidence = Evidence(
        duration_s=4.0, speech_s=3.5, no_speech_prob=0.02, avg_logprob=-0.2, language="en"
    )
    assert check_text(SENTENCE, evidence) == ()


def test_nothing_known_and_nothing_written_raises_no_flag() -> None:
    assert check_text("", Evidence()) == ()


def test_silence_by_voice_activity_is_flagged_whatever_the_probability() -> None:
    evidence = Evidence(duration_s=3.0, speech_s=0.0, no_speech_prob=0.0, avg_logprob=-0.1)
    flag = check_no_speech(evidence)
    assert flag is not None
    assert "0.00 s of speech" in flag.reason


@pytest.mark.parametrize(
    ("no_speech_prob", "avg_logprob", "flagged"),
    [
        (0.61, -1.01, True),
        (0.61, None, True),
        (0.61, -1.0, False),
        (0.60, -2.0, False),
        (None, -5.0, False),
    ],
)
def test_a_decoders_probability_counts_unless_the_text_is_probable(
    no_speech_prob: float | None, avg_logprob: float | None, flagged: bool
) -> None:
    found = check_no_speech(Evidence(no_speech_prob=no_speech_prob, avg_logprob=avg_logprob))
    assert (found is not None) == flagged


def test_the_compression_ratio_is_bytes_over_zlib_bytes() -> None:
    text = "\u043f\u0440\u0438\u0432\u0435\u0442 " * 9
    data = text.encode()
    assert compression_ratio(text) == len(data) / len(zlib.compress(data))
    assert compression_ratio("") == 0.0


def test_repetition_is_flagged_by_compression_and_a_long_plain_text_is_not() -> None:
    assert check_compression("thank you for watching " * 12) is not None
    assert check_compression(SENTENCE) is None


def test_the_threshold_itself_is_not_beyond_it() -> None:
    text = "so it goes " * 6
    at = GuardThresholds(compression_ratio=compression_ratio(text))
    assert check_compression(text, at) is None


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("no " * 8, "'no' 8 times"),
        ("and then, " * 4 + "we left", "'and then' 4 times"),
        ("well " + "thank you very much. " * 5, "'thank you very much' 5 times"),
    ],
)
def test_a_phrase_again_and_again_is_a_loop(text: str, phrase: str) -> None:
    flag = check_ngram_loop(text)
    assert flag is not None
    assert phrase in flag.reason


@pytest.mark.parametrize(
    "text",
    [
        "zero zero zero zero one",
        "very very very very very good",
        "and then we and then they and then you",
        "a b c a b c a b c",
        "",
    ],
)
def test_natural_repetition_is_no_loop(text: str) -> None:
    assert check_ngram_loop(text) is None


def test_a_loop_of_characters_is_found_where_words_have_no_spaces() -> None:
    text = "\u8c22\u8c22\u5927\u5bb6" * 4
    assert check_ngram_loop(text, "zh") is not None
    assert check_ngram_loop(text, "en") is None


def test_more_letters_than_can_be_said_are_flagged_against_speech_then_duration() -> None:
    letters = sum(character.isalnum() for character in SENTENCE)
    assert letters == 45
    assert names(SENTENCE, Evidence(duration_s=1.0)) == ["chars_per_second"]
    assert names(SENTENCE, Evidence(duration_s=3.0)) == []
    assert names(SENTENCE, Evidence(duration_s=3.0, speech_s=1.0)) == ["chars_per_second"]


def test_the_limit_depends_on_the_language() -> None:
    text = "\u4f60" * 5 + "\u597d" * 5 + "\u5417" * 5
    assert check_speaking_rate(text, Evidence(duration_s=1.0, language="zh-CN")) is not None
    assert check_speaking_rate(text, Evidence(duration_s=1.0, language="en")) is None


def test_a_short_word_has_no_speaking_rate() -> None:
    assert check_speaking_rate("seven", Evidence(duration_s=0.1)) is None


def test_text_for_no_time_at_all_is_flagged() -> None:
    assert check_speaking_rate(SENTENCE, Evidence(duration_s=0.0)) is not None


def test_flags_come_in_the_order_of_the_catalogue_with_a_reason_each() -> None:
    flags = check_text("thank you " * 40, Evidence(duration_s=1.0, speech_s=0.0))
    assert tuple(flag.name for flag in flags) == GUARDS
    assert all(flag.reason for flag in flags)


def test_thresholds_travel_to_workers() -> None:
    thresholds = GuardThresholds(loop_repeats=7)
    assert ForkingPickler.loads(ForkingPickler.dumps(thresholds)) == thresholds
