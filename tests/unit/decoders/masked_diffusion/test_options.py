from __future__ import annotations

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions


def test_all_that_is_out_of_range_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        DiffusionOptions(strategy="pd", select="mrb", num_steps=0, ratios=(1.5,), max_tokens=0)
    for part in (
        "strategy knows no 'pd'. Did you mean pdd",
        "select knows no 'mrb'. Did you mean mbr",
        "num_steps must be 1 or more, got 0",
        "ratios must be between 0 and 1, got 1.5",
        "max_tokens must be 1 or more, got 0",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="length_quantile must be above 0 and below 1"):
        DiffusionOptions(length_quantile=1.0)


@pytest.mark.parametrize(
    ("settings", "candidates"),
    [
        ({}, 15),
        ({"num_steps": 1}, 1),
        ({"num_steps": 1, "diversity": "sample"}, 15),
        ({"strategy": "confidence"}, 1),
        ({"strategy": "confidence", "gumbel": 0.5}, 15),
        ({"strategy": "semi_block", "temperature": 0.5}, 15),
        ({"strategy": "ancestral"}, 15),
    ],
)
def test_candidates_that_would_be_the_same_are_written_once(settings, candidates) -> None:
    assert DiffusionOptions(**settings).candidates == candidates


def test_later_steps_hide_seven_tenths() -> None:
    options = DiffusionOptions()
    assert [options.ratio(step) for step in range(6)] == [1.0, 0.9, 0.85, 0.8, 0.7, 0.7]
