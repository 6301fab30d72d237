from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.data.manifest import Utterance, write_manifest
from speechadapt.data.suite import Suite, draw, group, read_suite

SIZES = {"digits": 8, "orders": 2, "wake": 1}


def rows(splits: tuple[str, ...] = ("train",)) -> list[Utterance]:
    return [
        Utterance(f"{task}{n}.flac", 1.0, id=f"{task}{n}", extra={"task": task, "split": split})
        for task, size in SIZES.items()
        for n in range(size)
        for split in splits
    ]


def suite() -> Suite:
    return group(rows(), "mix.jsonl")


def test_a_manifest_is_grouped_by_task(tmp_path: Path) -> None:
    write_manifest(tmp_path / "mix.jsonl", rows())
    found = read_suite(tmp_path / "mix.jsonl")
    assert {task: len(found.of(task)) for task in found} == SIZES
    assert list(found) == list(SIZES)
    assert found.of("wake")[0].audio_filepath == str(tmp_path / "wake0.flac")


def test_tasks_are_mixed_by_size_evenly_or_in_between() -> None:
    assert suite().shares(1.0) == pytest.approx(
        {"digits": 8 / 11, "orders": 2 / 11, "wake": 1 / 11}
    )
    assert suite().shares(1e9) == pytest.approx(dict.fromkeys(SIZES, 1 / 3))
    roots = {task: size**0.5 for task, size in SIZES.items()}
    total = sum(roots.values())
    assert suite().shares(2.0) == pytest.approx({task: one / total for task, one in roots.items()})
    with pytest.raises(ConfigError, match="temperature must be above 0, got 0"):
        suite().shares(0.0)


def test_what_is_drawn_is_a_function_of_seed_and_step() -> None:
    first = draw(suite(), 20, step=3, seed=1)
    assert draw(suite(), 20, step=3, seed=1) == first
    assert draw(suite(), 20, step=4, seed=1) != first
    assert draw(suite(), 20, step=3, seed=2) != first
    assert all(row.extra["task"] == task for task, row in first)


def test_tasks_are_drawn_with_their_shares() -> None:
    drawn = Counter(task for task, _ in draw(suite(), 4000, step=0, seed=0, temperature=2.0))
    for task, share in suite().shares(2.0).items():
        assert drawn[task] / 4000 == pytest.approx(share, abs=0.03)


def test_splits_and_left_out_tasks() -> None:
    both = group(rows(("train", "dev")), "mix.jsonl")
    assert {task: len(found) for task, found in both.split("dev").tasks.items()} == SIZES
    assert list(both.without("orders")) == ["digits", "wake"]
    with pytest.raises(DataError, match="task 'digits' has no test rows"):
        both.split("test")


def test_unknown_and_missing_tasks_are_named() -> None:
    with pytest.raises(DataError, match=r"no task 'digit'\. Did you mean digits"):
        suite().of("digit")
    with pytest.raises(DataError, match="'order'"):
        suite().without("order")
    with pytest.raises(DataError, match=r"row 'x' of 'mix.jsonl' names no task"):
        group([Utterance("x.flac", id="x")], "mix.jsonl")
    with pytest.raises(DataError, match="holds no rows"):
        group([], "mix.jsonl")
