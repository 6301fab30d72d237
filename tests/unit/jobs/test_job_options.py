"""What every job can be asked: engines, limits, shards."""

from __future__ import annotations

from dataclasses import fields

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.job_options import JobOptions, parse_shard
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.restore_options import RestoreOptions


@pytest.mark.parametrize("options", [TranscribeOptions, RestoreOptions])
def test_every_job_has_the_same_shared_fields_and_names_its_mistakes(options):
    shared = {entry.name for entry in fields(JobOptions)}
    assert shared < {entry.name for entry in fields(options)}
    with pytest.raises(ConfigError) as caught:
        options(workers=0, on_error="wait", max_failures="many")
    for part in ("--workers", "--on-error", "--max-failures"):
        assert part in str(caught.value)


def test_a_timeout_or_several_workers_ask_for_processes():
    assert TranscribeOptions().engine_name == "serial"
    assert TranscribeOptions(workers=2).engine_name == "process"
    assert TranscribeOptions(timeout=5.0).engine_name == "process"
    with pytest.raises(ConfigError, match="--timeout needs --engine process"):
        TranscribeOptions(engine="serial", timeout=5.0)
    with pytest.raises(ConfigError, match="--engine serial has one worker"):
        TranscribeOptions(engine="serial", workers=2)


def test_the_failure_limit_is_a_number_or_a_share():
    assert TranscribeOptions().failure_limit(200) is None
    assert TranscribeOptions(max_failures="7").failure_limit(200) == 7
    assert TranscribeOptions(max_failures="2.5%").failure_limit(200) == 5


def test_shards_count_from_one():
    assert parse_shard(None, {}) == (0, 1)
    assert parse_shard("1/4", {}) == (0, 4)
    assert parse_shard("4/4", {}) == (3, 4)
    for wrong in ("0/4", "5/4", "1-4", "x"):
        with pytest.raises(ConfigError, match="1/n"):
            parse_shard(wrong, {})


def test_a_slurm_array_says_which_shard_it_is():
    task = {
        "SLURM_ARRAY_TASK_ID": "12",
        "SLURM_ARRAY_TASK_MIN": "10",
        "SLURM_ARRAY_TASK_COUNT": "3",
    }
    assert parse_shard("auto", task) == (2, 3)
    with pytest.raises(ConfigError, match="SLURM_ARRAY_TASK_COUNT"):
        parse_shard("auto", {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1"})


def test_the_state_has_a_folder_of_its_own_only_beside_a_url():
    asked = TranscribeOptions(output="s3://bucket/out", job_folder="state", workers=2)
    assert "job_folder" not in asked.identity()
    with pytest.raises(ConfigError, match="--job-folder is for an -o that is a URL"):
        TranscribeOptions(output="out", job_folder="state")
    with pytest.raises(ConfigError, match="--job-folder must be a local folder, got 's3://b'"):
        TranscribeOptions(output="s3://bucket/out", job_folder="s3://b")


def test_memory_is_shared_by_no_processes():
    assert TranscribeOptions(inputs=("memory://in",), output="memory://out")
    for inputs, output in ((("memory://in",), "out"), ((), "memory://out")):
        with pytest.raises(ConfigError, match="seen by one process alone; give --engine serial"):
            TranscribeOptions(inputs=inputs, output=output, workers=2)
