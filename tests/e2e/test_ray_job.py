"""The same job on Ray and in one process: not a byte of the outputs differs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fake_recogniser import HOOK
from tests.e2e.jobs import (
    CLIPS,
    check_whole,
    end,
    journal,
    kill_and_resume,
    start,
    stop,
    tree,
    wait_for,
)

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")

Launch = Callable[..., BaseProcess]


@pytest.fixture
def on_ray() -> Iterator[Launch]:
    """Start the command line with a Ray of its own; whatever still runs at the end is killed."""
    begun: list[BaseProcess] = []

    def launch(
        source: Path,
        output: Path,
        address: str = "local",
        workers: int = 2,
        **environment: str,
    ) -> BaseProcess:
        words = ("--engine", "ray", "--address", address, "--workers", str(workers))
        words += ("--no-vad", "--batch-size", "2")
        environment["SPEECHADAPT_LOADER"] = HOOK
        begun.append(start("transcribe", source, output, *words, **environment))
        return begun[-1]

    yield launch
    for process in begun:
        process.kill()
        process.join()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a cluster of three logical nodes, one worker each, the driver's among them."""
    from ray.cluster_utils import Cluster

    # Workers inherit it from their node; long enough that the one that starts last finds work.
    monkeypatch.setenv("FAKE_PAUSE_S", "1")
    node = {"num_cpus": 1, "object_store_memory": 100 * 1024 * 1024}
    checks = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 10_000,
        "health_check_failure_threshold": 3,
    }
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": checks})
    for _ in range(2):
        cluster.add_node(**node)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def expected(whole) -> dict[str, bytes]:
    return whole()


def test_ray_writes_what_one_process_writes(source, expected, on_ray, tmp_path):
    # A batch takes half a second, so that a worker that is slow to start still finds work.
    assert end(on_ray(source, tmp_path / "out", FAKE_PAUSE_S="0.5")) == 0
    assert tree(tmp_path / "out") == expected
    workers = (tmp_path / "out/.speechadapt/journal").glob("*-worker-*.jsonl")
    assert sum(path.stat().st_size > 0 for path in workers) == 2
    summary = json.loads((tmp_path / "out/.speechadapt/summary.json").read_text())
    assert summary["complete"]


@pytest.mark.slow
def test_a_clip_that_kills_workers_is_left_out_with_its_reason(source, expected, on_ray, tmp_path):
    output = tmp_path / "out"
    assert end(on_ray(source, output, FAKE_DIE_AT_HZ="250")) == 3
    failed = [line for line in journal(output) if line["status"] == "failed"]
    assert [(line["id"], line["reason"]) for line in failed] == [("clip05.wav", "MODEL")]
    assert "its worker died, 3 times" in failed[0]["message"]
    mine = {name: data for name, data in expected.items() if "clip05" not in name}
    del mine["transcripts.jsonl"]
    assert {name: tree(output).get(name) for name in mine} == mine


@pytest.mark.slow
def test_killed_drivers_leave_no_trace(source, expected, on_ray, tmp_path):
    output = tmp_path / "out"
    kill_and_resume(partial(on_ray, source, output), output, [2, 9], FAKE_PAUSE_S="0.1")
    check_whole(output, expected, attempts=None)


@pytest.mark.slow
def test_a_signal_ends_the_run_after_its_batch_and_the_next_goes_on(
    source, expected, on_ray, tmp_path
):
    output = tmp_path / "out"
    process = on_ray(source, output, FAKE_PAUSE_S="0.2")
    wait_for(output, 1, process)
    assert stop(process, signal.SIGTERM) == 143
    assert 0 < len(journal(output)) < CLIPS
    assert end(on_ray(source, output)) == 0
    assert tree(output) == expected


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True], ids=["whole", "one node killed"])
def test_three_nodes_write_what_one_process_writes(source, expected, on_ray, nodes, tmp_path, lost):
    output = tmp_path / "out"
    process = on_ray(source, output, nodes.address, 3)
    if lost:
        wait_for(output, 3, process)
        nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
    assert end(process) == 0
    check_whole(output, expected, attempts=None)
    if not lost:
        workers = (output / ".speechadapt/journal").glob("*-worker-*.jsonl")
        assert sum(path.stat().st_size > 0 for path in workers) == 3
