from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from speechadapt.core.errors import FingerprintError, JobError
from speechadapt.core.files import atomic_write_json
from speechadapt.jobs.folder import JobFolder, differences, find_folder, folder_of
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.place import LocalPlace

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


def test_a_file_url_is_a_local_folder(tmp_path: Path):
    options = TranscribeOptions(output=f"file://{tmp_path}/out")
    folder = folder_of(options, "1-of-1")
    assert (folder.output, folder.place.shown) == (tmp_path / "out", str(tmp_path / "out"))
    assert find_folder(f"file://{tmp_path}/out").output == tmp_path / "out"


def test_a_job_behind_a_url_is_found_by_it_or_by_the_folder_of_its_state(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = "memory://found"
    folder = folder_of(TranscribeOptions(output=url), "1-of-1")
    folder.claim(IDENTITY)
    folder.place.push()
    assert folder.output.is_relative_to(tmp_path / "cache")
    assert find_folder(url).read_identity() == IDENTITY
    with pytest.raises(JobError, match="'memory://nothing' holds no job"):
        find_folder("memory://nothing").check_exists()
    options = TranscribeOptions(output=url, job_folder=str(tmp_path / "state"))
    split = folder_of(options, "1-of-1")
    atomic_write_json(split.request, {"output": url})
    assert (split.output, split.place.shown) == (tmp_path / "state", url)
    assert find_folder(tmp_path / "state").place.shown == url


def test_the_plain_folder_of_a_damaged_request_is_still_one(tmp_path: Path):
    folder = JobFolder(tmp_path)
    for text in ("{", "[]", "{}", '{"output": 3}'):
        folder.request.parent.mkdir(exist_ok=True)
        folder.request.write_text(text)
        assert find_folder(tmp_path).place == LocalPlace(tmp_path)
