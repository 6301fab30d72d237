from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from speechadapt.core.errors import JobError
from speechadapt.jobs.plan import Limits, PlanItem, extend_plan, make_plan, read_plan, write_plan


def item(name: str, seconds: float, **values: object) -> PlanItem:
    found = PlanItem(name, f"{name}.wav", f"/in/{name}.wav", name, key="1", header_s=seconds)
    return replace(found, **values)  # type: ignore[arg-type]


ITEMS = [item(f"i{n}", 1.0 + n % 4) for n in range(10)]


def test_every_item_stands_in_exactly_one_batch():
    plan = make_plan(ITEMS, Limits(batch_size=3, batch_s=100.0))
    places = [place for batch in plan.batches for place in batch.items]
    assert sorted(places) == list(range(10))
    assert max(len(batch.items) for batch in plan.batches) == 3


def test_batches_hold_like_lengths_and_no_more_padded_seconds_than_allowed():
    plan = make_plan(ITEMS, Limits(batch_size=100, batch_s=8.0))
    for batch in plan.batches:
        lengths = [plan.items[place].audio_s for place in batch.items]
        assert len(lengths) * max(lengths) <= 8.0
    longest = [max(plan.items[i].audio_s for i in batch.items) for batch in plan.batches]
    assert longest == sorted(longest, reverse=True)


def test_a_clip_longer_than_a_batch_may_be_stands_alone():
    plan = make_plan([item("a", 50.0), item("b", 1.0)], Limits(batch_s=8.0))
    assert [batch.items for batch in plan.batches] == [(0,), (1,)]


def test_long_recordings_stand_alone_and_first():
    items = [item("a", 1.0), item("b", 90.0, long=True), item("c", 200.0, long=True)]
    plan = make_plan(items, Limits())
    assert [(batch.items, batch.long) for batch in plan.batches] == [
        ((2,), True),
        ((1,), True),
        ((0,), False),
    ]


def test_items_that_are_left_out_are_in_no_batch():
    plan = make_plan([item("a", 1.0, skip="too short"), item("b", 1.0)], Limits())
    assert [batch.items for batch in plan.batches] == [(1,)]


def test_the_plan_comes_back_from_disk_as_it_was(tmp_path: Path):
    items = [*ITEMS, item("odd\udcff\n", 2.0, text="a", lang="en", speaker="s", whole=True)]
    plan = make_plan(items, Limits(batch_size=4))
    write_plan(tmp_path, plan, 0, items)
    assert read_plan(tmp_path) == (plan, 1)


def test_more_items_form_batches_of_their_own_and_leave_the_old_ones_alone(tmp_path: Path):
    plan = make_plan(ITEMS, Limits(batch_size=4))
    write_plan(tmp_path, plan, 0, ITEMS)
    more = [item("new", 2.0), replace(ITEMS[3], key="2", header_s=9.0)]
    assert plan.changed([*ITEMS, *more]) == more
    larger = extend_plan(plan, more)
    write_plan(tmp_path, larger, 1, more)
    assert read_plan(tmp_path) == (larger, 2)
    assert [found.id for found in larger.items] == [f"i{n}" for n in range(10)] + ["new"]
    assert larger.items[3].key == "2"
    untouched = [batch for batch in plan.batches if 3 not in batch.items]
    assert set(untouched) < set(larger.batches)
    places = [place for batch in larger.batches for place in batch.items]
    assert sorted(places) == list(range(11))


def test_half_a_plan_is_refused(tmp_path: Path):
    write_plan(tmp_path, make_plan(ITEMS, Limits()), 0, ITEMS)
    path = tmp_path / "0000.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(JobError, match="not whole"):
        read_plan(tmp_path)
    path.write_text("".join(lines)[:-5])
    with pytest.raises(JobError, match="cannot be read"):
        read_plan(tmp_path)


def test_seconds_to_expect_follow_offset_duration_and_header():
    assert item("a", 10.0, offset=4.0).audio_s == 6.0
    assert item("a", 10.0, offset=4.0, duration=2.0).audio_s == 2.0
    assert item("a", 10.0, offset=9.0, duration=5.0).audio_s == 1.0
    assert replace(item("a", 0.0), header_s=None).audio_s == 0.0
