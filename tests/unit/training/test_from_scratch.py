from __future__ import annotations

import pytest
import torch

from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.from_scratch import (
    learned_weights,
    through_problems,
    traffic,
    train_through,
)

SETTINGS = {"heads": 2, "rank": 4, "merge_every": 2}


@pytest.fixture
def handle(tiny_folder):
    encoder = load_encoder(tiny_folder("w2v_bert"))
    return train_through(encoder, "lte", SETTINGS, ("attn.q", "ffn.down"))


def test_the_weights_it_replaces_are_frozen_and_all_others_train(handle):
    model = handle.encoder.model
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen == {f"{site.write}.weight" for site in handle.sites}
    assert len(frozen) == 2 * 3
    assert all(one.requires_grad for one in handle.parameters())


def test_inside_the_block_the_weights_hold_what_was_learned(handle):
    model = handle.encoder.model
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    clips = [0.1 * torch.randn(4000)]
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
        acting = handle.encoder.encode(clips)[0]
        with learned_weights(handle):
            held = handle.encoder.encode(clips)[0]
            assert handle.merged
            changed = {n for n, one in model.named_parameters() if not torch.equal(one, before[n])}
    assert changed == {f"{site.write}.weight" for site in handle.sites}
    torch.testing.assert_close(held, acting, rtol=0, atol=1e-4)
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())


def test_traffic_tells_what_is_sent_at_merges_from_what_is_sent_at_steps(handle):
    for step in range(1, 6):
        handle.after_step(step)
    found = traffic(handle, 5)
    model = handle.encoder.model
    everything = 4 * sum(one.numel() for one in model.parameters())
    replaced = 4 * sum(32 * site.dim_in for site in handle.sites)
    assert found["bytes"] == {"ordinary": 5 * everything, "rest": 5 * (everything - replaced)}
    heads = 4 * sum(4 * (site.dim_in + site.dim_out) for site in handle.sites)
    assert found["figures"] == {"merges": 2.0, "bytes_sent_by_a_worker": 2.0 * heads}


def test_what_cannot_be_trained_through_is_said() -> None:
    assert through_problems("", {}) == []
    assert through_problems("lte", SETTINGS) == []
    assert "without a method" in through_problems("", SETTINGS)[0]
    assert "there is no" in through_problems("ltee", {})[0]
    assert "keeps what it learned in its weights" in through_problems("houlsby", {})[0]
    assert "adapter.rank" in through_problems("lte", {"rank": 0})[0]
