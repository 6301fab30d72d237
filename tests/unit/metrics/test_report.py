from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechadapt.metrics.report import (
    HEADER,
    item_rows,
    markdown_table,
    score_set,
    score_transcripts,
    table_row,
    to_json,
)
from speechadapt.metrics.wer import Pair

PAIRS = [
    Pair("1", "one two three four", "one two four", speaker="ann", language="en"),
    Pair("2", "five", "nine", speaker="zoe", language="en"),
    Pair("3", "six seven", "six seven", speaker="zoe", language="en"),
]


def test_a_row_holds_the_counts_the_rates_and_the_clusters() -> None:
    scored = score_set("digits/test", PAIRS)
    row = dict(zip(HEADER, table_row(scored), strict=True))
    assert row["set"] == "digits/test"
    assert (row["items"], row["words"]) == ("3", "7")
    assert row["ins del sub"] == "0 1 1"
    assert row["clusters"] == "2 speakers"
    # One edit of four words by ann, one of three by zoe: the ends are the speakers themselves.
    assert row["WER % [lo, hi]"] == "28.6 [25.0, 33.3]"
    assert row["CER %"] == f"{100 * scored.score.cer:.1f}"


def test_one_speaker_is_said_to_be_one() -> None:
    scored = score_set("unseen", [Pair(str(n), "one", "one", speaker="ann") for n in range(4)])
    assert table_row(scored)[-1] == "4 items, 1 speaker"


def test_the_interval_moves_to_characters_where_they_are_the_headline() -> None:
    scored = score_set("zh", [Pair("1", "\u4f60\u597d", "\u4f60\u597d", language="zh")])
    row = dict(zip(HEADER, table_row(scored), strict=True))
    assert row["WER % [lo, hi]"] == "0.0"
    assert row["CER %"] == "0.0 [0.0, 0.0]"


def test_the_table_is_markdown_and_names_normaliser_and_scorer() -> None:
    pairs = [*PAIRS, Pair("4", "eight", None), Pair("5", "", "thank you")]
    table = markdown_table([score_set("a|b", pairs)])
    lines = table.splitlines()
    assert lines[0] == "| " + " | ".join(HEADER) + " |"
    assert lines[2].startswith("| a\\|b | 4 | 8 |")
    assert "Normaliser: verbatim 1; scorer: jiwer" in table
    assert "1 of 5 hypotheses are missing and count as deletions" in table
    assert "1 item without speech, 2 words inserted there" in table


def test_a_set_without_words_shows_no_rate() -> None:
    scored = score_set("silence", [Pair("1", "", "")])
    assert table_row(scored)[3:5] == ("-", "-")
    row = to_json(scored)
    assert row["wer"] is None
    assert row["wer_interval"]["low"] is None
    json.dumps(row, allow_nan=False)


def test_json_holds_fractions_and_how_the_interval_was_made() -> None:
    row = to_json(score_set("digits", PAIRS))
    assert row["wer"] == pytest.approx(2 / 7, abs=1e-6)
    assert row["wer_interval"]["method"] == "95% bootstrap over 2 speakers"
    assert row["words"] == {
        "reference": 7,
        "hits": 5,
        "substitutions": 1,
        "deletions": 1,
        "insertions": 0,
    }
    json.dumps(row, allow_nan=False)


def test_item_rows_add_up_to_the_corpus() -> None:
    scored = score_set("digits", [*PAIRS, Pair("4", "eight", None)])
    rows = item_rows(scored)
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[3]["hypothesis"] is None
    assert sum(row["words"]["deletions"] for row in rows) == scored.score.words.deletions


def test_a_jobs_transcripts_are_scored_as_one_set(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    rows = [
        {"audio_filepath": "a.wav", "text": "one two", "pred_text": "one"},
        {"audio_filepath": "b.wav", "text": "three four", "pred_text": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = score_transcripts("job", path)
    assert scored.score.wer == 0.75
    assert scored.score.missing == 1


def test_another_seed_draws_another_interval() -> None:
    pairs = [Pair(str(n), "one two three", "one two three four"[: 3 + n % 12]) for n in range(40)]
    first, again, other = (score_set("x", pairs, seed=seed).wer for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
