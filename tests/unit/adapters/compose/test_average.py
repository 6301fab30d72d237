from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.compose.average import normalised
from speechadapt.adapters.composed import compose
from speechadapt.adapters.kinds import Part
from speechadapt.core.errors import ConfigError

PARTS = tuple(Part(name, (name,)) for name in "abc")


def test_weights_sum_to_one():
    assert normalised(PARTS, (2.0, 1.0, 1.0)) == (0.5, 0.25, 0.25)
    assert normalised(PARTS, ()) == pytest.approx((1 / 3,) * 3)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(ConfigError, match="'b' was given the weight"):
        normalised(PARTS, (1.0, weight, 1.0))


def test_adapters_at_other_roles_count_as_nothing_there(load, trained, frames):
    """At a role of its own, half of an adapter is the average of it and one that is not there."""
    encoder = load("w2v_bert")
    trained(encoder, "lora", names="a", roles=["layer.0.ffn1.up"])
    trained(encoder, "lora", names="b", roles=["layer.1.ffn2.up"])
    compose(encoder, "average(a, b)", name="both")
    halves = frames(encoder, "both")
    with torch.no_grad():
        for name in "ab":
            adapter = encoder.attached.handles[name].module.adapters()[0]
            adapter.change.up *= 0.5
    torch.testing.assert_close(frames(encoder, ("a", "b")), halves, rtol=0, atol=1e-5)
