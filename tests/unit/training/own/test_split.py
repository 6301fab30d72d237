from __future__ import annotations

from dataclasses import replace

import pytest

from speechadapt.core.errors import DataError
from speechadapt.data.manifest import Utterance
from speechadapt.data.split import seconds_of
from speechadapt.training.own.split import SplitConfig, divide


def rows(count: int, seconds: float = 3.0, speakers: int = 0, split: str = "") -> list[Utterance]:
    extra = {"split": split} if split else {}
    return [
        Utterance(
            f"{number}.wav", seconds, text="one", id=f"{split}{number}", extra=extra,
            speaker=f"voice {number % speakers}" if speakers else None,
        )
        for number in range(count)
    ]  # fmt: skip


def test_little_data_gives_up_a_larger_share_and_much_data_minutes_at_most() -> None:
    little = divide(rows(200), SplitConfig())
    assert seconds_of(little.test) == pytest.approx(90.0, abs=3)
    assert seconds_of(little.dev) == pytest.approx(90.0, abs=3)
    more = divide(rows(1000), SplitConfig())
    assert seconds_of(more.test) == pytest.approx(300.0, abs=3)
    much = divide(rows(1800, seconds=20.0), SplitConfig())
    assert seconds_of(much.test) == pytest.approx(1200.0, abs=20)
    assert seconds_of(much.dev) == pytest.approx(600.0, abs=20)


def test_speakers_of_the_test_part_are_in_no_other_part() -> None:
    parts = divide(rows(300, speakers=10), SplitConfig())
    assert parts.by == "speaker"
    assert parts.new_speakers
    by_recording = divide(rows(300, speakers=10), SplitConfig(by="recording"))
    assert by_recording.by == "recording"
    assert not by_recording.new_speakers


def test_two_speakers_are_not_parted_and_unknown_ones_are_not_new() -> None:
    assert divide(rows(60, speakers=2), SplitConfig()).by == "recording"
    assert not divide(rows(60), SplitConfig()).new_speakers


def test_shares_can_be_set() -> None:
    parts = divide(rows(100), SplitConfig(test=0.4, dev=0.2))
    assert [len(part) for part in parts.named().values()] == [40, 20, 40]


def test_splits_of_the_manifest_are_kept_to() -> None:
    named = [*rows(20, split="train"), *rows(4, split="dev"), *rows(5, split="test")]
    parts = divide(named, SplitConfig())
    assert [len(part) for part in parts.named().values()] == [20, 4, 5]
    assert parts.by == "given"


def test_a_given_dev_part_is_scored_and_another_one_drawn() -> None:
    parts = divide([*rows(20, split="train"), *rows(4, split="dev")], SplitConfig())
    assert {row.id for row in parts.test} == {f"dev{number}" for number in range(4)}
    assert (len(parts.train) + len(parts.dev), parts.by) == (20, "given")


def test_a_manifest_of_train_alone_is_divided() -> None:
    parts = divide(rows(20, split="train"), SplitConfig())
    assert parts.by == "recording"
    assert len({row.id for part in parts.named().values() for row in part}) == 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (rows(2), "2 usable rows were found; at least three"),
        ([*rows(3), *rows(3, split="train")], "3 of 6 rows name no split"),
        ([*rows(1, split="train"), *rows(9, split="test")], "1 of 10 usable rows are of the split"),
    ],
)
def test_rows_that_cannot_be_divided_are_refused(given: list[Utterance], message: str) -> None:
    with pytest.raises(DataError, match=message):
        divide(given, SplitConfig())


def test_three_rows_are_enough() -> None:
    parts = divide([replace(row, speaker="ann") for row in rows(3)], SplitConfig())
    assert [len(part) for part in parts.named().values()] == [1, 1, 1]
