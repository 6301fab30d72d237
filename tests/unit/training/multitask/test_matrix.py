from __future__ import annotations

import math

import pytest

from speechadapt.training.multitask.matrix import (
    BASE,
    ORACLE,
    macro,
    matrix_lines,
    matrix_rows,
    oracle,
)


def rates(*values: float) -> dict[str, dict[str, float]]:
    return {
        task: {"cer": value, "wer": 2 * value}
        for task, value in zip(("digits", "orders"), values, strict=False)
    }


MATRIX = {BASE: rates(0.5, 0.9), "digits": rates(0.1, 0.8), "orders": rates(0.6, 0.3)}


def test_the_mean_counts_every_task_alike() -> None:
    assert macro(MATRIX["digits"], "cer") == pytest.approx(0.45)
    assert macro(MATRIX["digits"], "wer") == pytest.approx(0.9)
    assert math.isnan(macro({}, "cer"))


def test_the_oracle_lets_the_adapter_of_the_task_speak() -> None:
    best = oracle(MATRIX)
    assert {task: one["cer"] for task, one in best.items()} == {"digits": 0.1, "orders": 0.3}
    without = {name: row for name, row in MATRIX.items() if name != "orders"}
    assert set(oracle(without)) == {"digits"}


def test_the_table_has_a_row_for_each_adapter_and_the_gap_to_the_oracle() -> None:
    head, *rows = matrix_rows(MATRIX, "cer")
    assert head == ["", "digits", "orders", "mean", "to the oracle"]
    assert rows[0] == [BASE, "50.0", "90.0", "70.0", "+250.0 %"]
    assert rows[1] == ["digits", "10.0", "80.0", "45.0", "+125.0 %"]
    assert rows[-1] == [ORACLE, "10.0", "30.0", "20.0", "+0.0 %"]


def test_without_an_adapter_for_every_task_there_is_no_gap() -> None:
    rows = matrix_rows({BASE: MATRIX[BASE], "digits": MATRIX["digits"]}, "cer")
    assert [row[-1] for row in rows[1:]] == ["-", "-"]
    assert ORACLE not in [row[0] for row in rows]


def test_the_lines_are_aligned() -> None:
    title, *lines = matrix_lines(MATRIX, "wer")
    assert title.startswith("WER % on dev")
    assert len({len(line) for line in lines}) == 1
    assert "180.0" in lines[1]
