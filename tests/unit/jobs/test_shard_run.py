"""Shards of a manifest, done by a real job with a quick stand-in for the model."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from speechadapt.core.errors import ConfigError, FingerprintError
from speechadapt.data.shard_tar import Sample, read_shard, write_shard
from speechadapt.jobs.execute import run_job
from speechadapt.jobs.lease import Lease
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.shard_plan import ShardLimits, ShardPlan, plan_shards, plan_tars
from speechadapt.jobs.shard_run import (
    finished_shards,
    join_shards,
    run_shards,
    shard_path,
    sum_shards,
    verify_shards,
)
from tests.e2e.fake_recogniser import HOOK, write_tone

OPTIONS = TranscribeOptions(vad=False, json_progress=True)
CLIPS = 7


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardPlan:
    """Plan seven tones in shards of three; one has a dot in its name, one is no audio."""
    monkeypatch.setenv("SPEECHADAPT_LOADER", HOOK)
    rows = []
    for number in range(CLIPS):
        name = f"a/clip{number}{'.v2' if number == 1 else ''}.wav"
        write_tone(tmp_path / name, 200 + 10 * number, 0.4)
        rows.append({"audio_filepath": name, "duration": 0.4, "text": f"p{200 + 10 * number} l40"})
    (tmp_path / "a" / "clip5.wav").write_text("no audio")
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return plan_shards(tmp_path / "m.jsonl", tmp_path / "plan", ShardLimits(items=3))


def samples(plan: ShardPlan, output: Path) -> dict[str, dict[str, bytes]]:
    found = [each for shard in plan.shards for each in read_shard(shard_path(output, shard))]
    return {Path(sample.key).name: dict(sample.files) for sample in found}


def test_shards_hold_what_an_ordinary_job_writes(plan, tmp_path):
    output = tmp_path / "out"
    assert run_shards(plan, output, OPTIONS) == 3
    found = samples(plan, output)
    assert sorted(found) == [f"clip{n}{'_v2' if n == 1 else ''}" for n in range(CLIPS)]
    assert sorted(found["clip0"]) == ["json", "row.json", "txt"]
    assert list(found["clip5"]) == ["row.json"]
    whole = TranscribeOptions(
        inputs=(str(tmp_path / "m.jsonl"),), output=str(tmp_path / "whole"), vad=False
    )
    assert run_job(whole) == 3
    for name in ("clip0", "clip4", "clip6"):
        (text,) = (tmp_path / "whole").rglob(f"{name}.txt")
        assert found[name]["txt"] == text.read_bytes()
    assert not (output / "open").is_dir() or list((output / "open").iterdir()) == []


def test_sums_come_from_the_shards_alone(plan, tmp_path):
    output = tmp_path / "out"
    run_shards(plan, output, OPTIONS)
    sums = join_shards(plan, output)
    assert (sums.shards, sums.done, sums.totals.pending) == (3, 3, 0)
    assert sums.totals.statuses == {"ok": 6, "failed": 1}
    assert sums.words.reference == 2 * CLIPS
    assert (sums.words.edits, sums.words.deletions) == (2, 2)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["score"]["wer"]["rate"] == pytest.approx(2 / 14)
    (failed,) = map(json.loads, (output / "failed.jsonl").read_text().splitlines())
    assert failed["reason"] == "UNREADABLE"
    assert list(verify_shards(plan, output)) == []


def test_an_interrupted_run_goes_on_with_the_open_shard(plan, tmp_path):
    output, calls = tmp_path / "out", []

    def stopped(options):
        calls.append(options.output)
        return run_job(options) if len(calls) == 1 else 143

    assert run_shards(plan, output, OPTIONS, stopped) == 143
    assert finished_shards(output) == {"000000"}
    assert sum_shards(plan, output).totals.pending == CLIPS - 3
    assert list(verify_shards(plan, output)) == [
        "shard 000001 is not done",
        "shard 000002 is not done",
    ]
    before = shard_path(output, plan.shards[0]).stat().st_mtime_ns
    assert run_shards(plan, output, OPTIONS) == 3
    assert shard_path(output, plan.shards[0]).stat().st_mtime_ns == before
    assert finished_shards(output) == {"000000", "000001", "000002"}


def test_a_shard_that_another_driver_is_at_is_left_to_it(plan, tmp_path):
    output = tmp_path / "out"
    with Lease(output / "leases" / "000001", "shard"):
        run_shards(plan, output, OPTIONS)
    assert finished_shards(output) == {"000000", "000002"}
    run_shards(plan, output, OPTIONS)
    assert finished_shards(output) == {"000000", "000001", "000002"}


def test_two_drivers_share_the_work_and_write_what_one_writes(plan, tmp_path):
    run_shards(plan, tmp_path / "one", OPTIONS)
    done: list[str] = []

    def noted(options):
        done.append(Path(options.output).parent.name)
        return run_job(options)

    with ThreadPoolExecutor(2) as drivers:
        list(drivers.map(lambda _: run_shards(plan, tmp_path / "two", OPTIONS, noted), range(2)))
    assert sorted(done) == ["000000", "000001", "000002"]
    assert samples(plan, tmp_path / "two") == samples(plan, tmp_path / "one")


def test_other_options_are_refused_before_any_work(plan, tmp_path):
    run_shards(plan, tmp_path / "out", OPTIONS)
    other = TranscribeOptions(vad=False, formats="srt")
    with pytest.raises(FingerprintError, match="formats"):
        run_shards(plan, tmp_path / "out", other, run=lambda options: 1 // 0)


def test_a_damaged_shard_is_found(plan, tmp_path):
    output = tmp_path / "out"
    run_shards(plan, output, OPTIONS)
    path = shard_path(output, plan.shards[2])
    path.write_bytes(path.read_bytes()[:-512])
    (problem,) = verify_shards(plan, output)
    assert "000002.tar' has" in problem


def test_recordings_in_tars_are_done_tar_by_tar(plan, tmp_path):
    run_shards(plan, tmp_path / "one", OPTIONS)
    for number in range(2):
        clips = [path for path in sorted((tmp_path / "a").iterdir()) if path.stem[4] in "0246"]
        members = [
            Sample(path.stem, {"wav": path.read_bytes()}) for path in clips[2 * number :][:2]
        ]
        write_shard(tmp_path / "tars" / f"{number}.tar", members)
    tars = plan_tars(sorted((tmp_path / "tars").glob("*.tar")), tmp_path / "tarplan")
    assert run_shards(tars, tmp_path / "two", OPTIONS) == 0
    first, second = samples(plan, tmp_path / "one"), samples(tars, tmp_path / "two")
    assert sorted(second) == ["clip0", "clip2", "clip4", "clip6"]
    assert all(second[name]["txt"] == first[name]["txt"] for name in second)
    assert list(verify_shards(tars, tmp_path / "two")) == []
    run_shards(tars, tmp_path / "elsewhere" / "three", OPTIONS)
    for shard in tars.shards:
        tar = shard_path(tmp_path / "two", shard)
        other = shard_path(tmp_path / "elsewhere" / "three", shard)
        assert tar.read_bytes() == other.read_bytes()


def test_shards_are_refused_behind_a_url(tmp_path: Path):
    plan = ShardPlan(tmp_path / "rows.jsonl", 0, 0.0, ShardLimits(), ())
    with pytest.raises(ConfigError, match="written to a file system, not to 's3:/bucket/out'"):
        run_shards(plan, Path("s3://bucket/out"), OPTIONS)
