from __future__ import annotations

import pytest

from speechadapt.training.progress import Progress


def test_plain_lines_come_no_faster_than_asked_and_always_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(total=5, done=0, every_s=1000.0)
    for step in range(1, 6):
        progress.update(step, {"loss": 1.5})
    progress.note(5, {"wer": 0.25})
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "steps/s" in line]) <= 2
    assert any(line.startswith("step 5/5 loss 1.5 |") for line in lines)
    assert lines[-1] == "step 5 dev: wer 0.25"


def test_a_process_that_does_not_show_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(total=1, done=0, show=False)
    progress.update(1, {})
    progress.note(1, {})
    assert capsys.readouterr().err == ""
