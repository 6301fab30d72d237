"""The table and the picture of a comparison of adapter methods."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from speechadapt.bench.adapter_report import markdown
from speechadapt.cli import bench as command


def test_the_table_shows_losers_last_and_problems_below() -> None:
    row = {"trained": 10, "forward": 1.0, "step": 0.5, "merges": False, "told": []}
    report = {
        "date": "2026-01-01",
        "environment": "cpu",
        "model": "m",
        "encoder": 1000,
        "share": 4.0,
        "rounds": 3,
        "recipe": "adapt/x",
        "steps": 5,
        "rates": (),
        "full_rates": (1e-3,),
        "rows": [
            {"method": "worse", "score": 0.5, "rate": 1e-3, **row},
            {"method": "better", "score": 0.25, "rate": 1e-3, **row},
            {"method": "other", "problem": "needs another encoder"},
        ],
    }
    text = markdown(report)
    assert text.index("| better | 10 | 1.00 % | 25.0 %") < text.index("| worse")
    assert "- other: needs another encoder" in text


def test_the_command_writes_table_figures_and_picture(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["adapters", "--model", str(base), "--methods", "lora", "--clips", "4"]
    result = CliRunner().invoke(command.app, [*words, "--rounds", "1", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "adapters.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["head", "full", "lora"]
    assert "| lora |" in (tmp_path / "adapters.md").read_text()
    assert (tmp_path / "adapters.png").stat().st_size > 1000
