from __future__ import annotations

import io
import json

from speechadapt.jobs.progress import BarProgress, PlainProgress, Tally, make_progress


def half() -> Tally:
    return Tally(
        items=10, audio_s=7200.0, items_done=5, audio_done_s=3600.0, failed=1, run_audio_s=1800.0
    )


def test_a_line_says_files_hours_speed_time_left_and_failures():
    assert half().line(60.0) == (
        "5/10 files, 1.00/2.00 h of audio, 30.0x real time, 2:00 left, 1 failed"
    )


def test_nothing_done_yet_is_no_division_by_zero():
    assert Tally(items=3).line(0.0).endswith("0.0x real time, - left, 0 failed")
    assert Tally().to_row(0.0)["eta_s"] is None


def test_plain_lines_come_now_and_then_and_once_at_the_end():
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=3600.0)
    for _ in range(50):
        progress.show(half())
    assert stream.getvalue() == ""
    progress.close(half())
    assert stream.getvalue().count("\n") == 1
    often = PlainProgress(stream, every_s=0.0)
    often.show(half())
    often.show(half())
    often.close(half())
    assert stream.getvalue().count("\n") == 3


def test_json_lines_are_json():
    stream = io.StringIO()
    PlainProgress(stream, as_json=True).close(half())
    row = json.loads(stream.getvalue())
    assert (row["event"], row["items_done"], row["failed"]) == ("progress", 5, 1)


def test_a_bar_leaves_one_plain_line_behind():
    stream = io.StringIO()
    bar = BarProgress(stream)
    bar.show(half())
    bar.close(half())
    assert "5/10 files" in stream.getvalue()


def test_without_a_terminal_there_is_no_bar():
    assert isinstance(make_progress(as_json=False), PlainProgress)
    assert isinstance(make_progress(as_json=True), PlainProgress)
