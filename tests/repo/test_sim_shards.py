"""The tool that plans made rows, in a smoke run."""

from __future__ import annotations

import json

import sim_shards


def test_a_smoke_run_plans_every_row_and_finds_what_is_left(tmp_path, capsys):
    assert sim_shards.main(["--quick", "--output", str(tmp_path / "shards.json")]) == 0
    details = json.loads((tmp_path / "shards.json").read_text())["details"]
    assert details["plan"]["items"] == 20_000
    assert details["resume"]["left"] == 2
    # The clips last 5 to 15 s, so a shard of ten hours holds 3,600 of them or so.
    assert 5 <= details["resume"]["shards"] <= 7
    assert 1500 <= details["resume"]["rows_left"] <= 2000
    assert "plan of ten million manifest rows" in capsys.readouterr().out
