from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from speechadapt.core.errors import DataError, JobError
from speechadapt.data.shard_tar import Sample, write_shard
from speechadapt.jobs.shard_plan import (
    ShardLimits,
    check_tar,
    plan_shards,
    plan_tars,
    read_shard_plan,
    shard_rows,
)

LIMITS = ShardLimits(items=10, audio_s=60.0)


def write_manifest(path: Path, count: int, seconds: float = 2.0) -> Path:
    rows = ({"audio_filepath": f"a/{n}.flac", "duration": seconds} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_shards_hold_every_row_once_in_order(tmp_path):
    manifest = write_manifest(tmp_path / "m.jsonl", 34)
    plan = plan_shards(manifest, tmp_path / "plan", LIMITS)
    assert [shard.items for shard in plan.shards] == [10, 10, 10, 4]
    assert (plan.items, plan.audio_s) == (34, 68.0)
    found = [row["audio_filepath"] for shard in plan.shards for row in shard_rows(plan, shard)]
    assert found == [str(tmp_path / "a" / f"{number}.flac") for number in range(34)]


def test_a_shard_is_full_by_seconds_too(tmp_path):
    manifest = write_manifest(tmp_path / "m.jsonl", 7, seconds=25.0)
    plan = plan_shards(manifest, tmp_path / "plan", LIMITS)
    assert [shard.items for shard in plan.shards] == [3, 3, 1]


def test_a_plan_is_made_once(tmp_path):
    manifest = write_manifest(tmp_path / "m.jsonl", 34)
    first = plan_shards(manifest, tmp_path / "plan", LIMITS)
    before = (tmp_path / "plan" / "shards.jsonl").stat().st_mtime_ns
    assert (
        plan_shards(manifest, tmp_path / "plan", LIMITS)
        == first
        == read_shard_plan(tmp_path / "plan")
    )
    assert (tmp_path / "plan" / "shards.jsonl").stat().st_mtime_ns == before
    with pytest.raises(JobError, match="holds the plan of"):
        plan_shards(manifest, tmp_path / "plan", ShardLimits(items=11))


def test_a_manifest_that_changed_is_refused(tmp_path):
    manifest = write_manifest(tmp_path / "m.jsonl", 34)
    plan = plan_shards(manifest, tmp_path / "plan", LIMITS)
    text = manifest.read_text()
    manifest.write_text(text.replace("a/15.flac", "b/15.flac"))
    assert shard_rows(plan, plan.shards[0])
    with pytest.raises(JobError, match="changed in shard 000001"):
        shard_rows(plan, plan.shards[1])
    manifest.write_text(text + "\n")
    with pytest.raises(JobError, match="is not as it was"):
        read_shard_plan(tmp_path / "plan")


@pytest.mark.parametrize("line", ["not json", '{"duration": 1}', "[]", '{"audio_filepath": ""}'])
def test_a_line_that_is_no_row_is_named_and_nothing_is_planned(tmp_path, line):
    manifest = write_manifest(tmp_path / "m.jsonl", 12)
    manifest.write_text(manifest.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"m\.jsonl line 13 is no row"):
        plan_shards(manifest, tmp_path / "plan", LIMITS)
    with pytest.raises(JobError, match="cannot be read"):
        read_shard_plan(tmp_path / "plan")


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def peak(count: int) -> int:
        manifest = write_manifest(tmp_path / f"{count}.jsonl", count)
        tracemalloc.start()
        plan_shards(manifest, tmp_path / f"plan{count}", ShardLimits(items=5000, audio_s=1e9))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(20000) < 2 * peak(2000)


def test_each_tar_is_a_shard_and_its_size_is_remembered(tmp_path):
    for number in range(3):
        samples = [Sample(f"{key}", {"wav": b"x", "txt": b"y"}) for key in range(number + 1)]
        write_shard(tmp_path / f"{number}.tar", samples)
    tars = sorted(tmp_path.glob("*.tar"))
    plan = plan_tars(tars, tmp_path / "plan")
    assert plan == plan_tars(tars, tmp_path / "plan")
    assert [(Path(shard.tar).name, shard.items) for shard in plan.shards] == [
        ("0.tar", 1),
        ("1.tar", 2),
        ("2.tar", 3),
    ]
    assert check_tar(plan.shards[1]) == tars[1]
    tars[1].write_bytes(b"short")
    with pytest.raises(JobError, match="is not as it was"):
        check_tar(plan.shards[1])
    with pytest.raises(DataError, match=r"1\.tar' cannot be read"):
        plan_tars(tars, tmp_path / "other")
    with pytest.raises(DataError, match="no tar"):
        plan_tars([], tmp_path / "other")


def test_cuts_of_lhotse_are_planned_as_the_rows_they_say(tmp_path):
    cuts = Path(__file__).parents[2] / "data" / "lhotse" / "cuts.jsonl"
    plan = plan_shards(cuts, tmp_path / "plan", ShardLimits(items=2))
    assert [shard.items for shard in plan.shards] == [2, 1]
    assert plan.audio_s == 0.5 + 0.25 + 0.3
    rows = [row for shard in plan.shards for row in shard_rows(plan, shard)]
    assert [row["id"] for row in rows] == ["a-whole", "a-part", "b/silent.1"]
    assert rows[1]["audio_filepath"] == str(cuts.parent / "audio" / "a.flac")
    assert (rows[1]["offset"], rows[1]["text"]) == (0.125, "un deux")
    (tmp_path / "m.jsonl").write_text('{"type": "PaddingCut", "id": "p"}\n')
    with pytest.raises(DataError, match=r"m\.jsonl line 1: type 'PaddingCut' is not one stretch"):
        plan_shards(tmp_path / "m.jsonl", tmp_path / "other", LIMITS)
    with pytest.raises(DataError, match=r"cuts\.jsonl\.gz' is packed"):
        plan_shards(cuts.with_name("cuts.jsonl.gz"), tmp_path / "other", LIMITS)
