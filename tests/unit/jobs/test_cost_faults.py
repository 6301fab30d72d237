"""The simulation, against cases whose result is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from speechadapt.jobs.cost_faults import FaultConfig, foresee, outlook_lines

CALM = FaultConfig(runs=3)


def test_where_nothing_goes_wrong_it_is_a_division():
    outlook = foresee(shards=1000, shard_h=0.5, devices=100, faults=CALM)
    assert outlook.median_h == outlook.late_h == pytest.approx(5.0)
    assert outlook.failures == 0
    assert outlook.busy == pytest.approx(1.0)


def test_the_last_shard_is_waited_for():
    outlook = foresee(shards=1001, shard_h=0.5, devices=100, faults=CALM)
    assert outlook.median_h == pytest.approx(5.5)
    assert outlook.busy == pytest.approx(1001 / 1100)


def test_slow_devices_take_less_of_the_work():
    slow = replace(CALM, slow_share=0.5, slow_factor=2.0)
    outlook = foresee(shards=3000, shard_h=0.1, devices=100, faults=slow)
    # 50 fast ones and 50 of half the pace are as good as 75.
    assert outlook.median_h == pytest.approx(3000 * 0.1 / 75, rel=0.03)


def test_failures_come_as_often_as_work_divided_by_the_mean_time_between_them():
    faults = FaultConfig(mtbf_h=50.0, restart_h=0.0, lapse_h=0.0, redo_h=0.0, runs=20)
    outlook = foresee(shards=1000, shard_h=1.0, devices=20, faults=faults)
    assert outlook.failures == pytest.approx(1000 / 50, rel=0.2)
    assert outlook.median_h == pytest.approx(50.0, rel=0.03)


def test_a_restart_costs_its_share_of_the_time():
    faults = FaultConfig(mtbf_h=10.0, restart_h=1.0, lapse_h=0.0, redo_h=0.0, runs=10)
    outlook = foresee(shards=4000, shard_h=0.5, devices=20, faults=faults)
    assert outlook.median_h == pytest.approx(100.0 * (1 + 1.0 / 10.0), rel=0.03)
    assert outlook.busy == pytest.approx(10 / 11, rel=0.03)


def test_work_lost_at_a_failure_is_done_again():
    faults = FaultConfig(mtbf_h=10.0, restart_h=0.0, lapse_h=0.0, redo_h=0.5, runs=10)
    lost = foresee(shards=400, shard_h=5.0, devices=10, faults=faults)
    kept = foresee(shards=400, shard_h=5.0, devices=10, faults=replace(faults, redo_h=0.0))
    assert lost.median_h / kept.median_h == pytest.approx(1 + 0.5 / 10, abs=0.03)


def test_the_same_seed_gives_the_same_outlook():
    faults = FaultConfig(mtbf_h=10.0, spread=0.3, slow_share=0.1, slow_factor=1.5, runs=4)
    assert foresee(200, 1.0, 10, faults) == foresee(200, 1.0, 10, faults)
    assert foresee(200, 1.0, 10, faults) != foresee(200, 1.0, 10, replace(faults, seed=9))


def test_the_lines_name_what_was_assumed_and_what_it_costs():
    faults = FaultConfig(mtbf_h=200.0, slow_share=0.1, slow_factor=1.5, runs=3)
    lines = outlook_lines(faults, foresee(100, 1.0, 10, CALM), price_h=30.0)
    text = "\n".join(lines)
    assert "every 200 h of work, 10% of the devices 1.5 times slower" in text
    assert "10.0 h in half of 3 simulated runs" in text
    assert "price      300, waiting included" in text
