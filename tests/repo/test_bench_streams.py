from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bench_streams
import pytest
import torch
from bench_steps import MB


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SETTING = bench_streams.Setting("tiny", 2, 4, 2, 2, "float32", "cpu", 1)


def test_the_smoke_run_writes_a_row_for_every_number_of_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_streams, "peak", lambda part, streams, setting: streams * MB)
    file = tmp_path / "streams.json"
    assert bench_streams.main(["--quick", "--threads", "1", "--output", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["quick"]
    rows = found["details"]["rows"]
    assert [(row["part"], row["streams"]) for row in rows] == [
        (part, count) for part in ("encoder", "decoder") for count in (1, 2, 4)
    ]
    assert [row["memory_growth_mb"] for row in rows] == [1, 2, 4] * 2
    for one, two, four in (rows[:3], rows[3:]):
        assert one["times_one_stream"] == 1
        assert one["parameters_added"] == 0
        assert 0 < two["parameters_added"] < four["parameters_added"]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_streams_are_rows_of_the_networks_batch(part: str) -> None:
    """What is timed has the streams it says."""
    rows: list[int] = []
    for count in (1, 4):
        work, _ = bench_streams.side(part, count, SETTING)
        hooked = torch.nn.modules.module.register_module_forward_pre_hook(
            lambda module, args: (
                rows.append(len(args[0]))
                if type(module).__name__ in ("WhisperEncoderLayer", "SelfAttention")
                else None
            )
        )
        work()
        hooked.remove()
        rows.append(0)
    plain, wide = rows[: rows.index(0)], rows[rows.index(0) + 1 : -1]
    assert plain
    assert wide == [4 * one for one in plain]


def test_more_streams_take_more_memory() -> None:
    big = replace(SETTING, batch=16)
    assert bench_streams.grow("encoder", 4, big) > bench_streams.grow("encoder", 1, big)
