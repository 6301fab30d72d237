from __future__ import annotations

import json

import numpy as np
import pytest

from speechadapt.audio.span import Span
from speechadapt.decoders.base import Hypothesis, Word
from speechadapt.jobs.listen import Clip, Problem
from speechadapt.jobs.long import Piece, Recording
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.recognise import Failure
from speechadapt.jobs.result import Result, clip_result, recording_result

ITEM = PlanItem("a", "a.wav", "/in/a.wav", "deep/a", key="k", header_s=2.0, text="yes")
SOUND = np.full(32000, 0.1, dtype=np.float32)


def clip(**values: object) -> Clip:
    known = {"waveform": SOUND, "audio_s": 2.0, "speech": (Span(0.5, 1.5),)}
    return Clip(ITEM, **(known | values))  # type: ignore[arg-type]


def finish(hypothesis: object, formats: tuple[str, ...] = ("txt",), **values: object) -> Result:
    return clip_result(clip(**values), hypothesis, 0.25, formats, "en")


def test_a_good_clip_has_its_files_row_and_coverage():
    result = finish(Hypothesis("yes"), ("txt", "json"))
    assert (result.status, result.reason, result.flags) == ("ok", None, ())
    assert set(result.files) == {"deep/a.txt", "deep/a.json"}
    assert result.row["pred_text"] == "yes"
    assert result.row["text"] == "yes"
    assert json.loads(result.files["deep/a.json"])["language"] == "en"
    assert (result.speech_s, result.covered_s) == (1.0, 1.0)
    assert (result.model_s, result.model_audio_s) == (0.25, 2.0)


def test_words_that_leave_speech_uncovered_show_in_the_coverage():
    word = Word("yes", 0.5, 0.7, 0.9)
    result = finish(Hypothesis("yes", words=(word,)))
    assert result.covered_s is not None
    assert 0.2 <= result.covered_s < 0.6


def test_the_guards_flag_and_keep_the_text():
    looped = " ".join(["no no no"] * 30)
    result = finish(Hypothesis(looped))
    assert result.status == "flagged"
    assert {"compression", "ngram_loop"} <= set(result.flags)
    assert result.row["pred_text"] == looped
    assert "ngram_loop: " in result.message


def test_a_text_where_nobody_speaks_is_flagged_and_an_empty_one_is_fine():
    assert finish(Hypothesis("ghost"), speech=()).status == "flagged"
    empty = finish(Hypothesis(""), speech=())
    assert (empty.status, empty.flags, empty.row["pred_text"]) == ("ok", ("no_speech",), "")


def test_a_clip_the_model_was_not_asked_about_is_empty_and_flagged():
    result = finish(None, speech=None)
    assert (result.status, result.flags) == ("ok", ("no_speech",))
    assert result.files == {"deep/a.txt": ""}
    assert (result.model_audio_s, result.speech_s, result.covered_s) == (0.0, None, None)


def test_a_partial_clip_keeps_its_text_and_says_what_is_missing():
    result = finish(Hypothesis("yes"), problem=Problem("PARTIAL", "4 s expected, 2 s decoded"))
    assert (result.status, result.reason) == ("partial", "PARTIAL")
    assert result.message == "4 s expected, 2 s decoded"
    assert result.files["deep/a.txt"] == "yes\n"


@pytest.mark.parametrize(
    ("hypothesis", "values", "reason"),
    [
        (Failure("OOM", "no room"), {}, "OOM"),
        (None, {"waveform": SOUND[:0], "problem": Problem("EMPTY", "no bytes")}, "EMPTY"),
    ],
)
def test_a_failed_clip_has_no_text_and_no_files(hypothesis, values, reason):
    result = finish(hypothesis, **values)
    assert (result.status, result.reason) == ("failed", reason)
    assert result.files == {}
    assert result.row["pred_text"] is None


def test_a_recording_joins_its_pieces_with_their_times():
    pieces = [
        Piece(1.0, 2.0, 0.8, Hypothesis("one", words=(Word("one", 0.1, 0.5, 0.9),))),
        Piece(5.0, 7.0, 1.5, Hypothesis("two", words=(Word("two", 0.5, 1.0, 0.9),))),
    ]
    recording = Recording(pieces, audio_s=8.0)
    result = recording_result(ITEM, recording, ("json", "txt"), "en", vad=True)
    segments = json.loads(result.files["deep/a.json"])["segments"]
    assert [(part["start"], part["end"]) for part in segments] == [(1.1, 1.5), (5.5, 6.0)]
    assert result.files["deep/a.txt"] == "one\ntwo\n"
    assert result.speech_s == pytest.approx(2.3)
    assert result.covered_s == pytest.approx(2.3)
    assert result.status == "ok"


def test_a_recording_without_speech_is_ok_and_empty():
    result = recording_result(ITEM, Recording(audio_s=8.0), ("txt",), None, vad=True)
    assert (result.status, result.flags, result.files) == ("ok", ("no_speech",), {"deep/a.txt": ""})
    assert (result.speech_s, result.covered_s) == (0.0, 0.0)


def test_a_piece_that_failed_makes_the_recording_partial_or_failed():
    bad = Piece(5.0, 7.0, 1.5, None)
    good = Piece(1.0, 2.0, 0.8, Hypothesis("one"))
    problem = Problem("MODEL", "5.0 s to 7.0 s: it broke")
    partial = recording_result(ITEM, Recording([good, bad], 8.0, problem), ("txt",), None, True)
    assert (partial.status, partial.reason, partial.row["pred_text"]) == ("partial", "MODEL", "one")
    failed = recording_result(ITEM, Recording([bad], 8.0, problem), ("txt",), None, True)
    assert (failed.status, failed.reason, failed.files) == ("failed", "MODEL", {})
