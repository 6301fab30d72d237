"""The tool that times a page, in a smoke run."""

from __future__ import annotations

import json

import bench_report
import pytest
from browser import CHROMIUM


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_smoke_run_opens_a_page_and_saves_pictures(tmp_path):
    words = ["--quick", "--screenshot", str(tmp_path / "page.png")]
    assert bench_report.main([*words, "--output", str(tmp_path / "report.json")]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["details"]["files"] == 200
    assert {one["claim"] for one in found["figures"]} == {"report_open", "report_size"}
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["page-files.png", "page-phone-files.png", "page-phone.png", "page.png"]


def test_without_a_browser_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(bench_report, "CHROMIUM", None)
    assert bench_report.main(["--quick"]) == 2
    assert "no chromium is installed" in capsys.readouterr().err
