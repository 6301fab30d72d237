from __future__ import annotations

import torch

from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachments


def test_a_stack_attaches_nothing_and_acts_in_order(load, trained, frames):
    encoder = load()
    trained(encoder, "houlsby")
    assert compose(encoder, "stack(b, a)") == ("b", "a")
    assert list(attachments(encoder)) == ["a", "b", "c"]
    other = frames(encoder, ("a", "b"))
    assert not torch.allclose(frames(encoder, ("b", "a")), other, atol=1e-4)


def test_stacks_in_stacks_are_one(load, trained):
    encoder = load()
    trained(encoder)
    assert compose(encoder, "stack(stack(c, a), b)") == ("c", "a", "b")
