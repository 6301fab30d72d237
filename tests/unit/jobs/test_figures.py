from __future__ import annotations

from speechadapt.jobs.figures import TextFigures
from speechadapt.jobs.ledger import Record


def record(status: str, **row: object) -> Record:
    return Record("a", "k", status, row=row)  # type: ignore[arg-type]


def test_every_reference_counts_once_whatever_became_of_its_item():
    figures = TextFigures("verbatim")
    figures.add(record("ok", text="one two", pred_text="one"))
    figures.add(record("failed", text="three", pred_text=None))
    figures.add(record("skipped", text="four", pred_text=None))
    figures.add(record("ok", text=None, pred_text="five"))
    score = figures.score()
    assert score is not None
    assert (score.references, score.missing, score.words.deletions) == (2, 1, 2)
    assert (figures.to_json(), tuple(figures.lines())) == ({}, ())


def test_another_text_of_the_row_can_be_scored():
    figures = TextFigures("verbatim", "pred_before")
    figures.add(record("ok", text="one two", pred_text="wrong", pred_before="one two"))
    score = figures.score()
    assert score is not None
    assert score.words.rate == 0.0
    assert TextFigures("verbatim").score() is None
