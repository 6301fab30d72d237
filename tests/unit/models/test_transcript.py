from __future__ import annotations

import json

import pytest

from speechadapt.decoders.base import Hypothesis
from speechadapt.decoders.base import Word as HeardWord
from speechadapt.models.transcript import Piece, Segment, Word, assemble, round_time


def heard(text: str, start: float = 0.0, **fields) -> Hypothesis:
    words = tuple(
        HeardWord(word, start + at, start + at + 0.5, 0.876543)
        for at, word in enumerate(text.split())
    )
    return Hypothesis(text, words=words, **fields)


def test_times_are_mapped_back_to_the_recording():
    transcript = assemble(
        [Piece(0.0, 3.0, heard("one two", 0.5)), Piece(10.0, 14.0, heard("three", 1.0))], 20.0
    )
    assert transcript.text == "one two three"
    assert [(word.word, word.start) for word in transcript.words] == [
        ("one", 0.5),
        ("two", 1.5),
        ("three", 11.0),
    ]
    assert [(one.id, one.start, one.end) for one in transcript.segments] == [
        (0, 0.5, 2.0),
        (1, 11.0, 11.5),
    ]


def test_a_piece_without_word_times_is_a_segment_of_its_whole_length():
    (segment,) = assemble([Piece(2.0, 5.0, Hypothesis("hello"))], 9.0).segments
    assert (segment.start, segment.end, segment.words) == (2.0, 5.0, ())


def test_no_segment_ends_after_its_piece():
    late = Hypothesis("word", words=(HeardWord("word", 0.5, 3.4, 1.0),))
    (segment,) = assemble([Piece(0.0, 3.0, late)], 3.0).segments
    assert segment.end == 3.0


def test_pieces_without_text_leave_no_segment_unless_flagged():
    silence = Hypothesis("", flags=("no_speech",), details={"raw_text": "thank you"})
    transcript = assemble(
        [Piece(0.0, 1.0, Hypothesis("")), Piece(1.0, 2.0, silence), Piece(2.0, 3.0, heard("yes"))],
        3.0,
    )
    assert transcript.text == "yes"
    assert transcript.flags == ("no_speech",)
    assert [(one.text, one.raw_text) for one in transcript.segments] == [
        ("", "thank you"),
        ("yes", None),
    ]


def test_the_decoders_own_cuts_are_kept_with_their_words():
    details = {
        "segments": [
            {"start": 0.0, "end": 1.2, "text": "a b"},
            {"start": 1.4, "end": None, "text": "c"},
        ]
    }
    hypothesis = Hypothesis("a b c", words=heard("a b c").words, details=details)
    transcript = assemble([Piece(5.0, 8.0, hypothesis)], 8.0)
    assert [(one.start, one.end, one.text) for one in transcript.segments] == [
        (5.0, 6.2, "a b"),
        (6.4, 8.0, "c"),
    ]
    assert [[word.word for word in one.words] for one in transcript.segments] == [
        ["a", "b"],
        ["c"],
    ]


def test_the_language_heard_longest_goes_before_the_models():
    pieces = [
        Piece(0.0, 1.0, heard("a", details={"language": "de"})),
        Piece(1.0, 9.0, heard("b", details={"language": "en"})),
    ]
    assert assemble(pieces, 9.0, "fr").language == "en"
    assert assemble([Piece(0.0, 1.0, heard("a"))], 1.0, "fr").language == "fr"


def test_json_has_whispers_fields_rounded():
    segment = Segment(
        id=0,
        start=0.511,
        end=1.499,
        text="hi",
        avg_logprob=-0.23456,
        compression_ratio=0.98765,
        no_speech_prob=0.123456,
        temperature=0.2,
        words=(Word("hi", 0.511, 1.499, 0.876543),),
    )
    row = segment.to_json()
    assert list(row)[:8] == [
        "id",
        "start",
        "end",
        "text",
        "avg_logprob",
        "compression_ratio",
        "no_speech_prob",
        "temperature",
    ]
    assert (row["start"], row["end"], row["avg_logprob"]) == (0.52, 1.5, -0.23)
    assert (row["no_speech_prob"], row["compression_ratio"]) == (0.12, 0.99)
    assert row["words"] == [{"word": "hi", "start": 0.52, "end": 1.5, "probability": 0.88}]


def test_the_transcripts_json_has_text_language_and_segments():
    transcript = assemble([Piece(0.0, 3.0, heard("one two"))], 3.0, "en")
    row = json.loads(json.dumps(transcript.to_json()))
    assert (row["text"], row["language"], len(row["segments"])) == ("one two", "en", 1)


@pytest.mark.parametrize(
    ("seconds", "rounded"), [(0.0, 0.0), (0.009, 0.0), (0.29, 0.28), (1.23, 1.24)]
)
def test_times_fall_on_a_grid_of_two_hundredths(seconds, rounded):
    assert round_time(seconds) == pytest.approx(rounded, abs=1e-9)


def test_candidates_stand_in_the_json_where_there_are_some():
    listed = [{"text": "on", "confidence": 0.9}, {"text": "in", "confidence": 0.4}]
    heard = Hypothesis("on", details={"candidates": listed})
    (row,) = assemble([Piece(0.0, 1.0, heard)], 1.0).to_json()["segments"]
    assert row["candidates"] == listed
    (plain,) = assemble([Piece(0.0, 1.0, Hypothesis("on"))], 1.0).to_json()["segments"]
    assert "candidates" not in plain
