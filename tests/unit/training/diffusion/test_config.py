from __future__ import annotations

import pytest

from speechadapt.core.bind import bind
from speechadapt.training.diffusion.config import MaskingConfig, NetworkConfig, RateConfig


@pytest.mark.parametrize(
    ("kind", "values", "part"),
    [
        (MaskingConfig, {"ratio": [0.0, 1.0]}, "ratio"),
        (MaskingConfig, {"ratio": [0.9, 0.2]}, "ratio"),
        (NetworkConfig, {"text_tokens": 257}, "text_tokens"),
        (NetworkConfig, {"frame_code": "x"}, "frame_code"),
        (RateConfig, {"layer_decay": 0.0}, "layer_decay"),
    ],
)
def test_settings_out_of_range_are_named(kind: type, values: dict, part: str) -> None:
    _, problems = bind(kind, values, "model")
    assert len(problems) == 1
    assert part in problems[0]
