from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.formats import FORMATS, SubtitleOptions, parse_formats, render
from speechadapt.models.transcript import Segment, Transcript, Word

PLAIN = Transcript(
    text="hello there a --> b",
    language="en",
    segments=(
        Segment(0, 0.0, 1.499, "hello there", avg_logprob=-0.1234, compression_ratio=0.876),
        Segment(1, 3661.011, 3662.5, "a --> b"),
    ),
    duration=3700.0,
)


def spoken(*texts: str, gap: float = 0.1, joiner: str = " ") -> Transcript:
    """Segments of half-second words, `gap` seconds apart."""
    segments, clock = [], 0.0
    for number, text in enumerate(texts):
        words = []
        for word in text.split():
            words.append(Word(word, clock, clock + 0.5, 0.987))
            clock += 0.5 + gap
        written = joiner.join(text.split())
        segments.append(Segment(number, words[0].start, words[-1].end, written, words=tuple(words)))
    return Transcript(joiner.join(texts), "en", tuple(segments), clock)


def cues(text: str) -> list[str]:
    """Return the texts of srt cues."""
    return ["\n".join(block.split("\n")[2:]) for block in text.strip().split("\n\n")]


def test_txt_has_a_segment_a_line() -> None:
    assert render("txt", PLAIN) == "hello there\na --> b\n"


def test_tsv_has_integer_milliseconds() -> None:
    expected = "start\tend\ttext\n0\t1500\thello there\n3661020\t3662500\ta --> b\n"
    assert render("tsv", PLAIN) == expected


def test_srt_has_numbers_hours_and_commas() -> None:
    assert render("srt", PLAIN) == (
        "1\n00:00:00,000 --> 00:00:01,500\nhello there\n\n"
        "2\n01:01:01,020 --> 01:01:02,500\na -> b\n\n"
    )


def test_vtt_has_its_head_points_and_hours_only_where_needed() -> None:
    assert render("vtt", PLAIN) == (
        "WEBVTT\n\n"
        "00:00.000 --> 00:01.500\nhello there\n\n"
        "01:01:01.020 --> 01:01:02.500\na -> b\n\n"
    )


def test_json_has_whispers_fields_and_rounded_numbers() -> None:
    value = json.loads(render("json", PLAIN))
    assert value["text"] == PLAIN.text
    assert value["language"] == "en"
    first = value["segments"][0]
    assert {"id", "start", "end", "text", "words", "temperature", "no_speech_prob"} <= set(first)
    assert (first["start"], first["end"]) == (0.0, 1.5)
    assert (first["avg_logprob"], first["compression_ratio"]) == (-0.12, 0.88)
    word = json.loads(render("json", spoken("hi you")))["segments"][0]["words"][1]
    assert word == {"word": "you", "start": 0.6, "end": 1.1, "probability": 0.99}


def test_json_holds_no_number_that_json_has_not() -> None:
    odd = replace(PLAIN, segments=(Segment(0, 0.0, 1.0, "x", avg_logprob=float("-inf")),))
    assert json.loads(render("json", odd))["segments"][0]["avg_logprob"] is None


def test_silence_leaves_a_trace_in_the_json_alone() -> None:
    silence = Segment(0, 0.0, 9.0, "", flags=("no_speech",), raw_text="thank you")
    quiet = Transcript("", None, (silence,), 9.0, ("no_speech",))
    assert render("txt", quiet) == ""
    assert render("tsv", quiet) == "start\tend\ttext\n"
    assert render("srt", quiet) == ""
    assert render("vtt", quiet) == "WEBVTT\n\n"
    assert json.loads(render("json", quiet))["segments"][0]["raw_text"] == "thank you"


def test_breaks_inside_a_text_become_spaces() -> None:
    odd = replace(PLAIN, segments=(Segment(0, 0.0, 1.0, " two\n\nlines\tand a tab "),))
    for name in ("txt", "srt", "tsv"):
        assert "two lines and a tab\n" in render(name, odd)


def test_without_limits_a_cue_is_a_segment() -> None:
    assert cues(render("srt", spoken("one two three", "four five"))) == [
        "one two three",
        "four five",
    ]


def test_a_width_breaks_lines_inside_a_cue() -> None:
    options = SubtitleOptions(max_line_width=9)
    assert cues(render("srt", spoken("one two three", "four"), options)) == [
        "one two\nthree",
        "four",
    ]


def test_a_width_wraps_segments_without_words() -> None:
    assert "hello\nthere\n" in render("srt", PLAIN, SubtitleOptions(max_line_width=6))


def test_a_line_count_breaks_cues_across_segments() -> None:
    options = SubtitleOptions(max_line_width=9, max_line_count=1)
    found = cues(render("srt", spoken("one two three", "four five"), options))
    assert found == ["one two", "three", "four five"]
    joined = SubtitleOptions(max_line_width=30, max_line_count=2)
    assert cues(render("srt", spoken("one two", "three"), joined)) == ["one two three"]


def test_a_long_pause_breaks_a_cue_across_segments() -> None:
    options = SubtitleOptions(max_line_width=30, max_line_count=2)
    assert cues(render("srt", spoken("one two", gap=3.5), options)) == ["one", "two"]


def test_a_word_limit_breaks_cues() -> None:
    options = SubtitleOptions(max_words_per_line=2)
    text = render("srt", spoken("one two three four five"), options)
    assert cues(text) == ["one two", "three four", "five"]
    assert "00:00:00,000 --> 00:00:01,100" in text


def test_highlighting_underlines_each_word_while_it_is_spoken() -> None:
    text = render("vtt", spoken("one two"), SubtitleOptions(highlight_words=True))
    assert text == (
        "WEBVTT\n\n"
        "00:00.000 --> 00:00.500\n<u>one</u> two\n\n"
        "00:00.500 --> 00:00.600\none two\n\n"
        "00:00.600 --> 00:01.100\none <u>two</u>\n\n"
    )


def test_words_of_a_language_without_spaces_are_joined_without() -> None:
    transcript = spoken("\u4eca\u5929 \u5929\u6c14 \u5f88 \u597d", joiner="")
    options = SubtitleOptions(max_words_per_line=2)
    assert cues(render("srt", transcript, options)) == ["\u4eca\u5929\u5929\u6c14", "\u5f88\u597d"]


def test_cue_times_never_run_backwards() -> None:
    text = render("srt", spoken("a b c d", "e f g"), SubtitleOptions(highlight_words=True))
    stamps = re.findall(r"(\d\d:\d\d:\d\d,\d{3})", text)
    assert stamps == sorted(stamps)
    assert len(stamps) >= 14


def test_every_format_is_a_pure_function_ending_in_a_line_break() -> None:
    transcript = spoken("one two", "three")
    for name in FORMATS:
        assert render(name, transcript) == render(name, transcript)
        assert render(name, transcript).endswith("\n")


def test_an_unknown_format_names_its_near_misses() -> None:
    with pytest.raises(ConfigError, match=r"no output format 'strt'\. Did you mean srt"):
        render("strt", PLAIN)
    with pytest.raises(ConfigError, match=r"there is no output format 'jsn'\. Did you mean json"):
        parse_formats("txt,jsn")


def test_a_list_of_formats_is_read_once_each_and_all_means_all() -> None:
    assert parse_formats("json, TXT,json") == ("json", "txt")
    assert parse_formats("all") == tuple(FORMATS)
    with pytest.raises(ConfigError, match="no output format in ' , '"):
        parse_formats(" , ")


def test_options_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_line_width must be 1 or more, got 0"):
        SubtitleOptions(max_line_width=0)
