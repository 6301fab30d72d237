from __future__ import annotations

import torch

from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment


def test_the_whole_rank_keeps_the_average(load, trained, frames):
    encoder = load("w2v_bert")
    trained(encoder, "lora")
    compose(encoder, "average(a, b, c)", name="outputs")
    compose(encoder, "svd(a, b, c)", name="weights")
    assert attachment(encoder, "weights").config.rank == 6
    torch.testing.assert_close(
        frames(encoder, "weights"), frames(encoder, "outputs"), rtol=0, atol=1e-4
    )


def test_twins_merge_to_themselves_at_their_own_rank(load, trained, frames):
    encoder = load()
    first, second = trained(encoder, "lora", names="ab")
    second.module.load_state_dict(first.module.state_dict())
    compose(encoder, "svd(a, b, rank=2)", name="merged")
    assert attachment(encoder, "merged").config.rank == 2
    torch.testing.assert_close(frames(encoder, "merged"), frames(encoder, "a"), rtol=0, atol=1e-4)


def test_a_lower_rank_loses_something(load, trained, frames):
    encoder = load()
    trained(encoder, "lora", names="ab")
    compose(encoder, "svd(a, b)", name="whole")
    compose(encoder, "svd(a, b, rank=1)", name="thin")
    assert not torch.allclose(frames(encoder, "thin"), frames(encoder, "whole"), atol=1e-3)
