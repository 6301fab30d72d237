from __future__ import annotations

import pytest

from speechadapt.adapters.attach import attach
from speechadapt.adapters.methods.hd_pissa import HdPissaConfig
from speechadapt.adapters.methods.lora import LoraConfig
from speechadapt.adapters.methods.pissa import PissaConfig
from speechadapt.adapters.update_rank import update_ranks
from speechadapt.core.errors import ConfigError

ROLES = ("layer.0.attn.q", "layer.0.ffn.down")


@pytest.mark.parametrize(
    ("method", "config", "rank"),
    [
        ("lora", LoraConfig(rank=3), 3),
        ("pissa", PissaConfig(rank=3), 6),
        ("hd_pissa", HdPissaConfig(rank=3, workers=4), 24),
    ],
)
def test_at_equal_rank_per_worker_methods_change_weights_by_their_rank(
    load, move, method, config, rank
):
    handle = attach(load(), method, config=config, roles=ROLES)
    assert set(update_ranks(handle).values()) == {0}
    move(handle)
    assert update_ranks(handle) == dict.fromkeys(ROLES, rank)


def test_a_method_that_does_not_merge_has_no_rank(load):
    handle = attach(load(), "houlsby", config={"bottleneck": 4})
    with pytest.raises(ConfigError, match="houlsby changes more than weights can hold"):
        update_ranks(handle)
