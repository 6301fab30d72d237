from __future__ import annotations

from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.rows import make_row


def test_a_row_holds_the_promised_fields_in_order():
    row = make_row(PlanItem("a", "a.wav", "/in/a.wav", "a"), "failed", reason="EMPTY")
    assert row == {
        "audio_filepath": "a.wav",
        "duration": None,
        "text": None,
        "pred_text": None,
        "flags": [],
        "status": "failed",
        "reason": "EMPTY",
    }
    assert list(row) == [
        "audio_filepath", "duration", "text", "pred_text", "flags", "status", "reason",
    ]  # fmt: skip


def test_what_the_manifest_named_is_kept_and_seconds_are_rounded():
    item = PlanItem("a", "a.wav", "a", "a", offset=1.5, text="yes", lang="en", speaker="s")
    row = make_row(item, "ok", pred_text="yes", flags=("ngram_loop",), duration=1.23456)
    assert row["offset"] == 1.5
    assert row["duration"] == 1.235
    assert (row["lang"], row["speaker"], row["flags"]) == ("en", "s", ["ngram_loop"])
