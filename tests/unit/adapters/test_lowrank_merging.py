from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment
from speechadapt.adapters.lowrank_merging import elected, factored, trimmed, weighted
from speechadapt.core.errors import ConfigError, SiteError


def test_factors_give_the_best_approximation():
    change = torch.randn(6, 4) @ torch.diag(torch.tensor([5.0, 2.0, 0.1, 0.01])) @ torch.randn(4, 9)
    down, up = factored(change, 4)
    torch.testing.assert_close(up @ down, change, rtol=1e-4, atol=1e-4)
    down, up = factored(change, 2)
    singular = torch.linalg.svdvals(change)
    error = torch.linalg.matrix_norm(up @ down - change)
    torch.testing.assert_close(error, singular[2:].square().sum().sqrt(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(down.norm(dim=1), up.norm(dim=0))


def test_the_largest_entries_stay():
    changes = torch.tensor([[[1.0, -4.0], [3.0, 0.5]], [[0.0, 1.0], [-2.0, 7.0]]])
    wanted = torch.tensor([[[0.0, -4.0], [3.0, 0.0]], [[0.0, 0.0], [-2.0, 7.0]]])
    assert torch.equal(trimmed(changes, 0.5), wanted)
    assert torch.equal(trimmed(changes, 1.0), changes)


def test_entries_that_agree_with_the_elected_sign_are_averaged():
    changes = torch.tensor([[3.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    # + wins and its 3 and 1 average to 2; the two ones to 1, zeros do not vote; nothing stays 0
    assert elected(changes, (1.0, 1.0, 1.0)).tolist() == [2.0, 1.0, 0.0]
    # the second weighs more: 0.1 * 3 + 0.1 * 1 < 0.8
    assert elected(changes, (0.1, 0.8, 0.1)).tolist() == [-1.0, 1.0, 0.0]


def test_the_weighted_sum():
    assert weighted(torch.tensor([[2.0, 4.0], [6.0, 0.0]]), (0.5, 0.25)).tolist() == [2.5, 2.0]


@pytest.mark.parametrize("method", ["lora", "pissa", "hydra_heads", "adapter_bias"])
def test_low_rank_methods_of_any_kind_merge(load, trained, frames, method):
    encoder = load("w2v_bert")
    trained(encoder, method, names="ab")
    compose(encoder, "average(a: 3, b: 1)", name="outputs")
    compose(encoder, "svd(a: 3, b: 1)", name="weights")
    assert attachment(encoder, "weights").method_name == "lora"
    wanted = frames(encoder, "outputs")
    close = 1e-4 * float(wanted.abs().max())
    torch.testing.assert_close(frames(encoder, "weights"), wanted, rtol=0, atol=close)


def test_what_cannot_be_merged_is_named(load, trained):
    encoder = load()
    trained(encoder, "lora", names="a")
    trained(encoder, "parallel", names="b")
    trained(encoder, "lora", names="c", roles=["attn.q"])
    trained(encoder, "lora", names="d", train_norms="all")
    with pytest.raises(ConfigError, match=r"'b' is of the method 'parallel'. .* mera"):
        compose(encoder, "svd(a, b)")
    with pytest.raises(SiteError, match="'c' stands at others than 'a'"):
        compose(encoder, "svd(a, c)")
    with pytest.raises(ConfigError, match="'d' has trained norms"):
        compose(encoder, "svd(a, d)")
