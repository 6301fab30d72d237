from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.data.manifest import Utterance
from speechadapt.data.split import hold_out, seconds_of, speakers_of

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def rows(lengths: list[float], speakers: int = 0) -> list[Utterance]:
    """Return rows of given lengths, dealt out to so many speakers; to none where that is 0."""
    return [
        Utterance(
            f"{number}.wav",
            duration=seconds,
            speaker=f"voice {number % speakers}" if speakers else None,
            id=f"row-{number}",
        )
        for number, seconds in enumerate(lengths)
    ]


@given(
    st.lists(st.floats(0.1, 20), min_size=2, max_size=40), st.integers(0, 6), st.floats(0.01, 0.5)
)
@QUICK
def test_both_parts_hold_something_and_share_nothing(
    lengths: list[float], speakers: int, share: float
) -> None:
    items = rows(lengths, speakers)
    wanted = share * seconds_of(items)
    parts = hold_out(items, wanted, 1.5 * wanted)
    assert parts.kept
    assert parts.held
    assert sorted(row.id for row in (*parts.kept, *parts.held)) == sorted(row.id for row in items)
    if parts.by == "speaker":
        assert not {row.speaker for row in parts.kept} & {row.speaker for row in parts.held}
        assert seconds_of(parts.held) <= 1.5 * wanted


def test_whole_speakers_are_held_out_where_they_are_known() -> None:
    parts = hold_out(rows([2.0] * 60, speakers=12), 12.0, 18.0)
    assert parts.by == "speaker"
    assert seconds_of(parts.held) == pytest.approx(20.0, abs=10.0)
    assert len(speakers_of(parts.kept) or ()) + len(speakers_of(parts.held) or ()) == 12


def test_a_speaker_who_says_too_much_is_not_held_out_whole() -> None:
    parts = hold_out(rows([2.0] * 20, speakers=2), 4.0, 6.0)
    assert parts.by == "recording"
    assert seconds_of(parts.held) == pytest.approx(4.0)


def test_one_unnamed_recording_makes_the_speakers_unknown() -> None:
    items = rows([2.0] * 20, speakers=10)
    items[3] = replace(items[3], speaker=None)
    assert speakers_of(items) is None
    assert hold_out(items, 4.0, 6.0).by == "recording"
    assert hold_out(rows([2.0] * 20, speakers=10), 4.0, 6.0, by_speaker=False).by == "recording"


def test_the_order_of_the_rows_changes_nothing() -> None:
    items = rows([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], speakers=3)
    one, other = hold_out(items, 5.0, 9.0), hold_out(items[::-1], 5.0, 9.0)
    assert {row.id for row in one.held} == {row.id for row in other.held}
