"""The engine on Ray: one small Ray on this machine, and three nodes in the slow test."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import JobError, MissingExtra
from speechadapt.engines.base import Outcome, Unit
from speechadapt.engines.ray import RayEngine
from tests.contract.test_engines import Squarer, die_at_once, make_nothing, make_squarer, run

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")
pytestmark = pytest.mark.filterwarnings("default")

ENGINE = RayEngine(workers=2)


class Slow(Squarer):
    """Takes its time, so that a node can be lost under way."""

    def process(self, unit: Unit, prepared: Any) -> int:
        time.sleep(0.2)
        return super().process(unit, prepared)


def make_slow(folder: Path, number: int) -> Slow:
    return Slow(folder, number)


def begun(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[0-9]*"))


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Start a Ray that all tests of this file share; the engine leaves it connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    store = 100 * 1024 * 1024
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=store)
    yield ray
    ray.shutdown()


@needs_ray
def test_every_unit_comes_back_once_and_a_bad_one_costs_no_other(ray, tmp_path):
    outcomes = run(ENGINE, tmp_path, [None, "raise", *[None] * 7])
    assert {index: one.value for index, one in outcomes.items() if one.kind == "done"} == {
        index: index**2 for index in range(9) if index != 1
    }
    assert outcomes[1].message == "ValueError: this item is bad"
    assert list(tmp_path.glob("closed-*"))


@needs_ray
def test_a_killed_worker_is_replaced_and_a_poison_unit_is_given_up_alone(ray, tmp_path):
    outcomes = run(ENGINE, tmp_path, [None, "die", "die once", *[None] * 4])
    kinds = [outcomes[index].kind for index in range(7)]
    assert kinds == ["done", "lost", *["done"] * 5]
    assert outcomes[1].message == "its worker died, 3 times"
    assert len(list(tmp_path.glob("1-*"))) == 3
    assert outcomes[2].unit.attempt > 1


@needs_ray
@pytest.mark.slow
def test_no_more_is_taken_than_the_workers_hold(ray, tmp_path):
    taken: list[int] = []

    def source() -> Iterator[Unit]:
        for index in range(40):
            taken.append(index)
            yield Unit(index, None)

    done = 0
    for _ in ENGINE.map(partial(make_squarer, tmp_path), source(), lambda: False):
        done += 1
        # Two units under way for each worker, and as many that wait for their turn.
        assert len(taken) <= done + 8
    assert done == 40


@needs_ray
@pytest.mark.slow
def test_stop_yields_what_is_under_way_and_begins_nothing_more(ray, tmp_path):
    units = [Unit(index, None) for index in range(20)]
    seen: list[Outcome] = []
    for outcome in ENGINE.map(partial(make_squarer, tmp_path), units, lambda: len(seen) >= 3):
        seen.append(outcome)
    assert 3 <= len(seen) < 20
    assert len(begun(tmp_path)) == len(seen)


@needs_ray
@pytest.mark.slow
def test_a_unit_that_takes_too_long_ends_its_worker_alone(ray, tmp_path):
    outcomes = run(ENGINE, tmp_path, [None, "hang", None, None], timeout_s=1.0)
    assert [outcomes[index].kind for index in range(4)] == ["done", "timeout", "done", "done"]


@needs_ray
@pytest.mark.slow
def test_workers_that_cannot_start_end_the_run_with_the_cause(ray):
    with pytest.raises(JobError, match="could not start: ValueError: there is no model here"):
        list(ENGINE.map(make_nothing, [Unit(0, None)], lambda: False))
    with pytest.raises(JobError, match="3 workers died while starting"):
        list(ENGINE.map(die_at_once, [Unit(0, None)], lambda: False))


@needs_ray
@pytest.mark.slow
def test_the_handlers_of_signals_are_left_as_they_were(ray, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(ENGINE, tmp_path, [None])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_missing_ray_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'speechadapt\[ray\]'"):
        list(ENGINE.map(make_nothing, [], lambda: False))


class NoRay:
    """Stands for Ray where it cannot be reached; it notes whether it was let go."""

    def __init__(self, error: Exception) -> None:
        self.error, self.let_go = error, False

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: Any) -> None:
        raise self.error

    def shutdown(self) -> None:
        self.let_go = True


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionError("Could not find any.\nMore."), "--address auto leads to no Ray cluster"),
        (Exception("The current node timed out."), "did not start for --address auto: The current"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_named_with_the_way_out(monkeypatch, error, text):
    stand_in = NoRay(error)
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    with pytest.raises(JobError, match=text):
        list(ENGINE.map(make_nothing, [Unit(0, None)], lambda: False))
    assert stand_in.let_go


@needs_ray
@pytest.mark.slow
def test_a_lost_node_loses_nothing_and_blames_no_unit(tmp_path):
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    checks = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 10_000,  # a dead node answers at once, a slow machine late
        "health_check_failure_threshold": 3,
    }
    node = {"num_cpus": 1, "object_store_memory": 100 * 1024 * 1024}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": checks})
    nodes = [cluster.add_node(**node) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        engine = RayEngine(workers=3, retries=0)
        units = [Unit(index, None) for index in range(30)]
        outcomes = {}
        for outcome in engine.map(partial(make_slow, tmp_path), units, lambda: False):
            outcomes[outcome.unit.index] = outcome
            if len(outcomes) in (4, 12) and nodes:
                cluster.remove_node(nodes.pop(), allow_graceful=False)
        assert {one.kind for one in outcomes.values()} == {"done"}
        assert sorted(outcomes) == list(range(30))
        assert any(one.unit.attempt > 1 for one in outcomes.values())
    finally:
        ray.shutdown()
        cluster.shutdown()
