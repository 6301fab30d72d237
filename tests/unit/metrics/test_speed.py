from __future__ import annotations

from speechadapt.metrics.speed import describe_environment


def test_the_environment_line_says_what_the_speed_was_measured_on() -> None:
    import torch

    line = describe_environment("cpu", torch.float32, 16).line
    assert line == (
        f"cpu, float32, {torch.get_num_threads()} threads, batch 16, torch {torch.__version__}"
    )
