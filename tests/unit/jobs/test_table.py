from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

from speechadapt.jobs.report import Report, Totals
from speechadapt.jobs.speed import RunSpeed
from speechadapt.jobs.table import lines, print_report
from speechadapt.metrics.speed import Environment
from speechadapt.metrics.wer import Pair, score_pairs

SPEED = RunSpeed(
    audio_s=100.0,
    model_s=3.0,
    warm_up_audio_s=20.0,
    warm_up_s=1.0,
    decode_s=0.5,
    write_s=0.1,
    wall_s=5.0,
    workers=2,
    environment=Environment("cpu", "float32", 2, "<= 16 clips", "2.11"),
)


def report(language: str = "en") -> Report:
    totals = Totals(items=4, pending=1, watched=3, speech_s=50.0, covered_s=45.0, audio_s=100.0)
    totals.statuses = Counter(ok=2, failed=1)
    totals.reasons = Counter(EMPTY=1)
    totals.flags = Counter(no_speech=1)
    pairs = [
        Pair("a", "one two", "one", "s1", language),
        Pair("b", "", "ghost", "s2", language),
        Pair("c", "three", None, "s3", language),
    ]
    return Report(Path("/out"), totals, score_pairs(pairs), SPEED, False)


def test_the_table_says_everything_that_must_be_stated():
    stream = io.StringIO()
    print_report(report(), stream)
    printed = " ".join(stream.getvalue().split())
    for part in (
        "4: 2 ok, 1 failed, 1 not done yet",
        "1 EMPTY",
        "WER 66.67% [",
        "0 insertions, 2 deletions, 0 substitutions",
        "CER",
        "95% bootstrap over 2 speakers",
        "1 items, 1 inserted words (in no rate)",
        "1 items without a hypothesis, counted as deletions",
        "jiwer",
        "verbatim 1",
        "90.0% of 50.0 s of speech",
        "RTF 0.025, RTFx 40.0; warm-up: first batch of each worker left out",
        "RTF 0.05, RTFx 20.0; 100.0 s of audio in 5.0 s",
        "cpu, float32, 2 threads, batch <= 16 clips, torch 2.11, 2 workers",
        "/out",
    ):
        assert part in printed, part


def test_languages_without_spaces_have_the_character_rate_first():
    names = [name for name, _ in lines(report("zh"))]
    assert names.index("CER") < names.index("WER")
    names = [name for name, _ in lines(report("en"))]
    assert names.index("WER") < names.index("CER")


def test_a_report_without_references_or_speed_is_short():
    bare = Report(Path("/out"), Totals(items=1), None, None, False)
    assert [name for name, _ in lines(bare)] == ["items", "audio", "output"]
