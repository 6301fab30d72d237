from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from speechadapt.core.errors import JobError
from speechadapt.jobs.lease import Lease


def write_foreign(path, age_s: float) -> None:
    """Leave the lease of a process on another host, last renewed so long ago."""
    path.write_text(json.dumps({"token": "theirs", "host": "elsewhere", "pid": 7}))
    then = time.time() - age_s
    os.utime(path, (then, then))


def wait_for(claim: Lease) -> None:
    deadline = time.monotonic() + 10
    while not claim.lost:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_holder_is_told_who_is_at_work(tmp_path):
    with Lease(tmp_path / "lease", "'out'"):
        with pytest.raises(
            JobError, match=rf"'out': process {os.getpid()} on .*, last heard of 0 s"
        ):
            Lease(tmp_path / "lease", "'out'").__enter__()
    with Lease(tmp_path / "lease", "'out'"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lease_of_another_host_is_kept_until_it_lapses(tmp_path):
    write_foreign(tmp_path / "lease", 30.0)
    with pytest.raises(JobError, match="process 7 on elsewhere, last heard of 30 s ago"):
        Lease(tmp_path / "lease", "'out'", lapse_s=60.0).__enter__()
    with Lease(tmp_path / "lease", "'out'", lapse_s=20.0):
        assert json.loads((tmp_path / "lease").read_text())["pid"] == os.getpid()


def test_a_dead_process_of_this_host_is_succeeded_at_once(tmp_path):
    code = (
        "import os, pathlib, sys; from speechadapt.jobs.lease import Lease\n"
        "Lease(pathlib.Path(sys.argv[1]), 'x').__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "lease")], check=False)
    assert (tmp_path / "lease").is_file()
    with Lease(tmp_path / "lease", "'out'"):
        pass


def test_heartbeats_keep_a_lease_alive(tmp_path):
    with Lease(tmp_path / "lease", "'out'", lapse_s=0.4) as claim:
        time.sleep(0.8)
        with pytest.raises(JobError, match="another run"):
            Lease(tmp_path / "lease", "'out'", lapse_s=0.4).__enter__()
        assert not claim.lost


def test_a_holder_whose_lease_was_taken_notices_and_leaves_it_alone(tmp_path):
    with Lease(tmp_path / "lease", "'out'", lapse_s=0.1) as claim:
        write_foreign(tmp_path / "lease", 0.0)
        wait_for(claim)
    assert json.loads((tmp_path / "lease").read_text())["token"] == "theirs"


def test_of_many_that_take_over_one_succeeds(tmp_path):
    for attempt in range(20):
        path = tmp_path / f"lease-{attempt}"
        write_foreign(path, 100.0)
        claims = [Lease(path, "'out'") for _ in range(8)]

        def enter(claim: Lease) -> bool:
            try:
                claim.__enter__()
            except JobError:
                return False
            return True

        with ThreadPoolExecutor(8) as executor:
            held = list(executor.map(enter, claims))
        assert sum(held) == 1
        claims[held.index(True)].__exit__(None, None, None)
