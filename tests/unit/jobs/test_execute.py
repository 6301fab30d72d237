from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.errors import ConfigError, JobError
from speechadapt.jobs.execute import retry_job, run_job
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.restore_options import RestoreOptions

OPTIONS = [TranscribeOptions, RestoreOptions]


@pytest.mark.parametrize("options", OPTIONS)
def test_an_output_folder_must_be_named(options):
    with pytest.raises(ConfigError, match="-o names the folder"):
        run_job(options(inputs=("a.wav",)))


@pytest.mark.parametrize("options", OPTIONS)
def test_beginning_anew_in_one_shard_is_refused(tmp_path: Path, options):
    asked = options(inputs=("a",), output=str(tmp_path / "out"), shard="1/2", overwrite=True)
    with pytest.raises(ConfigError, match="other shards"):
        run_job(asked)
    assert not (tmp_path / "out").exists()


def test_retrying_where_there_is_no_job_is_refused(tmp_path: Path):
    with pytest.raises(JobError, match="holds no job"):
        retry_job(tmp_path)
