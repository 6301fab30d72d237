from __future__ import annotations

import pytest

from speechadapt.jobs.ledger import Record
from speechadapt.jobs.restore_figures import RestoreFigures


def record(name: str, status: str = "ok", **row: object) -> Record:
    return Record(name, "k", status, row=row)  # type: ignore[arg-type]


@pytest.fixture
def figures() -> RestoreFigures:
    found = RestoreFigures("verbatim")
    found.add(
        record(
            "a",
            text="one two three four",
            pred_before="one two x four",
            pred_text="one two three four",
            scores={"dnsmos_ovrl": {"before": 2.0, "after": 3.0}, "speaker": 0.9},
        )
    )
    found.add(
        record(
            "b",
            "flagged",
            text=None,
            pred_before="x",
            pred_text="x",
            kept_original=["speaker 0.500 < 0.75", "cer 0.2 > 0.1"],
            scores={"dnsmos_ovrl": {"before": 4.0, "after": None}, "speaker": 0.5},
        )
    )
    return found


def test_words_are_scored_before_and_after(figures):
    score = figures.score()
    assert score is not None
    assert score.words.rate == 0.0
    assert figures.to_json()["restoration"]["before"]["wer"]["rate"] == 0.25
    assert dict(figures.lines())["WER before"].startswith("25.00%")


def test_scores_are_means_over_items_that_have_both_sides(figures):
    found = figures.to_json()["restoration"]["scores"]
    assert found["dnsmos_ovrl"] == {"before": 2.0, "after": 3.0, "items": 1}
    assert found["speaker"] == {"mean": 0.7, "items": 2}
    assert dict(figures.lines())["dnsmos_ovrl"] == "2.000 -> 3.000 (mean of 1 items)"


def test_the_gate_is_counted_by_item_and_by_reason(figures):
    found = figures.to_json()["restoration"]
    assert (found["kept_original"], found["gates"]) == (1, {"cer": 1, "speaker": 1})
    assert dict(figures.lines())["kept original"] == "1: 1 by cer, 1 by speaker"


def test_where_nobody_listened_no_reference_counts():
    figures = RestoreFigures("verbatim")
    figures.add(record("a", text="one", pred_text=None, scores={}))
    assert figures.score() is None
    assert figures.to_json()["restoration"]["before"] is None
    assert figures.lines() == []


def test_an_item_that_failed_counts_as_deleted_where_somebody_listened(figures):
    figures.add(record("c", "failed", text="lost words", pred_text=None))
    score = figures.score()
    assert score is not None
    assert (score.missing, score.words.deletions) == (1, 2)
