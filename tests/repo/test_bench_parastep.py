"""`tools/bench_parastep.py`: what is compared, and a whole run over real processes."""

from __future__ import annotations

from pathlib import Path

import bench_parastep
import pytest


def test_time_error_and_agreement_are_held_against_one_process() -> None:
    def way(texts: list[str], *seconds: float) -> dict:
        rows = [[str(n), "one two", None, text] for n, text in enumerate(texts)]
        return {"seconds": list(seconds), "rows": rows}

    table = bench_parastep.compare(
        {"one": way(["one two", "one"], 1.0, 2.0, 3.0), "shared": way(["one two", "two"], 3.0)}
    )
    assert table["one"]["agreement"] == 1.0
    assert table["shared"]["agreement"] == 0.5
    assert table["shared"]["over_one"] == pytest.approx(1.5)
    assert table["shared"]["wer"] == pytest.approx(0.25)


def test_two_processes_write_what_two_steps_at_once_write(tmp_path: Path) -> None:
    work = bench_parastep.Work(
        "mini-diffusion", (), Path(), {"num_steps": 2, "num_candidates": 2}, 1
    )
    batched, shared = (
        bench_parastep.run_way(work, bench_parastep.WAYS[name]) for name in ("batched", "shared")
    )
    assert batched["rows"] == shared["rows"]
    assert len(shared["seconds"]) == 1


def test_one_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_parastep.main(["--num-steps", "1"]) == 2
    assert "--num-steps must be 2 or more" in capsys.readouterr().err
