from __future__ import annotations

import math

import pytest

from speechadapt.core.errors import CatalogError
from speechadapt.metrics.speed import (
    STAGES,
    SpeedReport,
    StageTimer,
    describe_environment,
)


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def report(audio_s: float = 0.0, wall_s: float = 0.0, **stages_s: float) -> SpeedReport:
    return SpeedReport(audio_s, wall_s, dict.fromkeys(STAGES, 0.0) | stages_s)


def test_stages_add_up_and_the_wall_clock_holds_all() -> None:
    clock = Clock()
    timer = StageTimer(clock=clock)
    for seconds in (1.0, 2.0):
        with timer.stage("encoder"):
            clock.now += seconds
    with timer.stage("write"):
        clock.now += 0.5
    clock.now += 0.25
    timer.add_audio(30.0)
    found = timer.report()
    assert found.stages_s == {
        "decode": 0.0,
        "features": 0.0,
        "encoder": 3.0,
        "decoder": 0.0,
        "write": 0.5,
    }
    assert (found.audio_s, found.wall_s) == (30.0, 3.75)


def test_warm_up_is_counted_apart() -> None:
    clock = Clock()
    timer = StageTimer(clock=clock)
    with timer.warm_up(), timer.stage("encoder"):
        clock.now += 5.0
        timer.add_audio(9.0)
    with timer.stage("encoder"):
        clock.now += 1.0
    timer.add_audio(10.0)
    found = timer.report()
    assert (found.warm_up_s, found.wall_s, found.audio_s) == (5.0, 1.0, 10.0)
    assert found.stages_s["encoder"] == 1.0


def test_a_stage_that_raises_is_timed_too() -> None:
    clock = Clock()
    timer = StageTimer(clock=clock)

    def fail() -> None:
        with timer.stage("decode"):
            clock.now += 2.0
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert timer.report().stages_s["decode"] == 2.0


def test_an_accelerator_is_awaited_at_both_ends_of_a_stage() -> None:
    clock = Clock()

    def finish_queue() -> None:
        clock.now += 1.0

    timer = StageTimer(clock=clock, synchronise=finish_queue)
    with timer.stage("encoder"):
        pass
    assert timer.report().stages_s["encoder"] == 1.0


def test_the_real_clock_moves_on() -> None:
    timer = StageTimer()
    with timer.stage("decode"):
        sum(range(1000))
    found = timer.report()
    assert 0 < found.stages_s["decode"] <= found.wall_s


def test_an_unknown_stage_names_near_ones() -> None:
    with pytest.raises(CatalogError, match="Did you mean encoder"), StageTimer().stage("encodr"):
        pass


def test_the_model_factor_leaves_reading_and_writing_out() -> None:
    found = report(100.0, 12.0, decode=4.0, features=1.0, encoder=2.0, decoder=1.0, write=2.0)
    assert found.model_rtf == pytest.approx(0.04)
    assert found.model_rtfx == pytest.approx(25.0)
    assert found.rtf == pytest.approx(0.12)
    assert found.rtfx == pytest.approx(100 / 12)


def test_nothing_processed_has_no_factor() -> None:
    found = report()
    assert math.isnan(found.rtf)
    assert math.isnan(found.rtfx)
    assert found.to_json()["model_rtf"] is None


def test_workers_side_by_side_add_up_work_and_share_the_wall_clock() -> None:
    both = report(10.0, 4.0, encoder=3.0) + report(20.0, 5.0, encoder=2.0)
    assert (both.audio_s, both.wall_s, both.stages_s["encoder"]) == (30.0, 5.0, 5.0)


def test_the_environment_line_says_what_the_speed_was_measured_on() -> None:
    import torch

    line = describe_environment("cpu", torch.float32, 16).line
    assert line == (
        f"cpu, float32, {torch.get_num_threads()} threads, batch 16, torch {torch.__version__}"
    )
