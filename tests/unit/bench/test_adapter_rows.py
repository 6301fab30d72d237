"""A comparison of adapter methods goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from speechadapt.bench import adapter_rows
from speechadapt.bench.adapter_rows import Kept, report_of
from speechadapt.bench.adapters import Bench


def test_rows_that_stand_in_the_folder_are_not_measured_again(
    speed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(speed.options, methods="houlsby,lora")
    asked: list[str] = []

    def measured(bench: Bench, name: str) -> dict:
        asked.append(name)
        return {"method": name, "trained": 1, "forward": 1.0}

    monkeypatch.setattr(adapter_rows, "measure_method", measured)
    kept = Kept.beside(tmp_path, options)
    first = report_of(replace(speed, options=options), kept)
    again = report_of(replace(speed, options=options), Kept.beside(tmp_path, options))
    assert asked == ["houlsby", "lora"]
    assert first["rows"] == again["rows"]
    other = replace(options, rounds=9)
    report_of(replace(speed, options=other), Kept.beside(tmp_path, other))
    assert asked == ["houlsby", "lora"] * 2
