"""The estimate, against the source's own case and sums by hand."""

from __future__ import annotations

import pytest

from speechadapt.core.bind import bind
from speechadapt.jobs.cost import CostConfig, cost_lines, estimate


def test_the_sources_own_case_takes_78_hours() -> None:
    cost = estimate(CostConfig(hours=1e6, devices=100, rtf=0.0078))
    assert cost.wall_h == pytest.approx(78.0)
    assert cost.device_h == pytest.approx(7800.0)
    assert cost.bottleneck == "model"


def test_storage_and_shards_are_added_up() -> None:
    config = CostConfig(hours=250.0, devices=2, rtf=0.5, input_kbps=64.0, shard_hours=100.0)
    cost = estimate(config)
    assert cost.input_gb == pytest.approx(250 * 3600 * 8000 / 1e9)
    assert cost.output_gb == pytest.approx(4 * cost.input_gb)
    assert cost.shards == 3
    assert cost.shard_input_gb == pytest.approx(cost.input_gb / 3)


@pytest.mark.parametrize(
    ("changes", "name", "pace"),
    [
        ({"read_mb_s": 1.0}, "read", 0.032),
        ({"write_mb_s": 0.5}, "write", 0.064),
        ({"decode_rtf": 0.03, "encode_rtf": 0.05, "cores": 2}, "decode and encode", 0.04),
        ({"rtf": 0.02}, "model", 0.02),
    ],
)
def test_the_slowest_stage_sets_the_pace(changes, name: str, pace: float) -> None:
    config = CostConfig(**({"hours": 1000.0, "devices": 10, "rtf": 0.001} | changes))
    cost = estimate(config)
    assert cost.bottleneck == name
    assert cost.wall_h == pytest.approx(100 * pace)


def test_the_lines_say_what_was_assumed() -> None:
    config = CostConfig(hours=1e6, devices=100, rtf=0.0078)
    text = cost_lines(config, estimate(config), ("A note.",))
    assert "wall time    78.0 h (3.25 days)" in text
    assert "bottleneck   model" in text
    assert "Assumed: every device has its own cores" in text
    assert text.endswith("A note.")


def test_requests_and_price_are_added_up() -> None:
    config = CostConfig(hours=1000.0, rtf=0.1, shard_hours=100.0, part_mb=100.0, price_h=2.5)
    cost = estimate(config)
    # 100 h of 256 kbit/s are 11.52 GB: 116 parts in and 116 out.
    assert cost.requests == 10 * (116 + 116 + 3)
    assert cost.price == pytest.approx(100.0 * 2.5)
    assert "price        250 at 2.5" in cost_lines(config, cost)


def test_figures_are_checked() -> None:
    assert (
        "devices must be 1 or more"
        in bind(CostConfig, {"hours": 1, "rtf": 1.0, "devices": 0})[1][0]
    )
