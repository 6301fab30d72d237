from __future__ import annotations

import pytest

from speechadapt.bench.options import DecoderBench
from speechadapt.core.errors import ConfigError


def test_lists_are_read_once_each_and_in_order() -> None:
    options = DecoderBench(num_candidates="8, 1,8", seconds="30,5", parts="reuse,length")
    assert options.candidate_counts == (1, 8)
    assert options.lengths_s == (5, 30)
    assert options.part_names == ("length", "reuse")
    assert DecoderBench(selections="rover,confidence").selection_names == ("confidence", "rover")


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        DecoderBench(
            random="papper",
            selections="mbr,rovver",
            parts="",
            num_steps="2,0",
            sets=("fsdd",),
            batch_size=0,
        )
    text = str(caught.value)
    for part in (
        "--random knows no 'papper'. Did you mean paper?",
        "--selections knows no 'rovver'. Did you mean rover?",
        "--parts names nothing",
        "--num-steps takes numbers of 1 or more, such as 1,2,4, got '2,0'",
        "--sets takes CORPUS/SPLIT, such as fsdd/dev, got 'fsdd'",
        "--batch-size must be 1 or more",
    ):
        assert part in text
