from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from speechadapt.core.errors import FingerprintError, JobError
from speechadapt.core.files import atomic_write_json
from speechadapt.jobs.folder import JobFolder, differences
from speechadapt.jobs.options import TranscribeOptions

IDENTITY = {"model": {"name": "a", "weights": "1f"}, "options": {"beam_size": 1}}


def test_a_new_folder_is_claimed_and_an_equal_identity_resumes(tmp_path: Path):
    folder = JobFolder(tmp_path)
    assert folder.claim(IDENTITY)
    assert not folder.claim(IDENTITY)
    assert folder.read_identity() == IDENTITY


def test_another_identity_is_refused_with_every_difference(tmp_path: Path):
    folder = JobFolder(tmp_path)
    folder.claim(IDENTITY)
    other = {"model": {"name": "b", "weights": "1f"}, "options": {"beam_size": 5, "vad": True}}
    with pytest.raises(FingerprintError) as caught:
        folder.claim(other)
    for line in (
        "model.name: 'a' there, 'b' now",
        "options.beam_size: 1 there, 5 now",
        "options.vad: absent there, True now",
        "--overwrite",
    ):
        assert line in str(caught.value)
    assert "weights" not in str(caught.value)


def test_equal_identities_have_no_differences():
    assert differences(IDENTITY, IDENTITY) == []


def test_a_broken_job_file_says_what_to_do(tmp_path: Path):
    folder = JobFolder(tmp_path)
    folder.claim(IDENTITY)
    folder.job.write_text("{")
    with pytest.raises(JobError, match="--overwrite"):
        folder.claim(IDENTITY)


def test_a_folder_without_a_job_is_named(tmp_path: Path):
    with pytest.raises(JobError, match="holds no job"):
        JobFolder(tmp_path).check_exists()


def test_a_lock_keeps_others_out_until_it_is_let_go(tmp_path: Path):
    first, second = JobFolder(tmp_path), JobFolder(tmp_path)
    with first.lock("driver"), pytest.raises(JobError, match="another run is at work"):
        second.lock("driver").__enter__()
    with second.lock("driver"), first.lock("plan"):
        pass


def test_shared_locks_share_and_keep_exclusive_ones_out(tmp_path: Path):
    first, second, third = (JobFolder(tmp_path) for _ in range(3))
    with first.lock("driver", shared=True), second.lock("driver", shared=True):
        with pytest.raises(JobError, match="lock driver"):
            third.lock("driver").__enter__()


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path: Path):
    program = (
        "import os, sys, pathlib; from speechadapt.jobs.folder import JobFolder; "
        "lock = JobFolder(pathlib.Path(sys.argv[1])).lock('driver'); lock.__enter__(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(JobError, match="another run"):
            JobFolder(tmp_path).lock("driver").__enter__()
        holder.kill()
        holder.wait()
    with JobFolder(tmp_path).lock("driver"):
        pass


def test_the_last_options_come_back(tmp_path: Path):
    folder = JobFolder(tmp_path)
    options = TranscribeOptions(inputs=("a", "b"), output="out", option=("lm=x",), beam_size=2)
    atomic_write_json(folder.request, vars(options))
    assert folder.read_request() == options
    folder.request.write_text('{"no_such_option": 1}')
    with pytest.raises(JobError, match="no_such_option"):
        folder.read_request()
