from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[2] / "tools" / "bench_native.py"
    spec = importlib.util.spec_from_file_location("bench_native", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_quick_run_prints_a_table_and_its_json(bench, threads, tmp_path, capsys):
    assert bench.main(["--quick", "--threads", "1", "--json", str(tmp_path / "r.json")]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    result = json.loads(lines[-1])
    assert json.loads((tmp_path / "r.json").read_text()) == result
    assert result["threads"] == 1
    assert result["bar_met"] is None
    assert any(line.startswith("native / full, encode") for line in lines)
    encode = {padding: parts["encode"]["median"] for padding, parts in result["seconds"].items()}
    assert result["ratio_encode"]["median"] == encode["native"] / encode["full"]
    assert result["ratio_encode"]["median"] < 1


def test_the_interval_holds_the_median(bench):
    value = bench.interval([1.0, 2.0, 3.0, 2.5, 1.5], [4.0, 4.0, 4.0, 4.0, 4.0])
    assert value["median"] == 0.5
    assert value["low"] <= 0.5 <= value["high"]
    assert value["low"] < value["high"]
