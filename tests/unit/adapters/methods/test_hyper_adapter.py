from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from speechadapt.adapters.methods.hyper_adapter import (
    METHOD,
    HyperAdapter,
    HyperAdapterConfig,
    HyperNetwork,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.sites import Site
from tests.unit.adapters.methods.generated import check_each_utterance_has_its_own, fill

SITES = [Site(f"layer.{n}.ffn", "a", "b", 32, 32) for n in range(2)]
X, Y = torch.randn(3, 5, 32), torch.randn(3, 5, 32)
WIDTHS = (64, 256, 1024)


def spread(width: int, rescaled: bool) -> float:
    torch.manual_seed(0)
    config = HyperAdapterConfig(bottleneck=8, width=width, rescaled=rescaled)
    network = HyperNetwork(SITES, config)
    with torch.no_grad():
        return float(network("layer.0.ffn", torch.randn(64, config.embedding))["down"].std())


def test_rescaled_weights_have_one_spread_whatever_the_width():
    spreads = [spread(width, True) for width in WIDTHS]
    xavier = math.sqrt(2 / (32 + 8))
    assert spreads == pytest.approx([xavier] * 3, rel=0.1)


def test_without_rescaling_the_spread_grows_with_the_root_of_the_width():
    spreads = [spread(width, False) for width in WIDTHS]
    roots = [math.sqrt(width / WIDTHS[0]) for width in WIDTHS]
    assert [one / spreads[0] for one in spreads] == pytest.approx(roots, rel=0.1)


def made(**settings: object) -> tuple[HyperNetwork, HyperAdapter]:
    config = HyperAdapterConfig(**{"bottleneck": 2, "embedding": 4, "width": 6, **settings})
    network = HyperNetwork(SITES, config)
    fill(network, METHOD, SITES, config)
    return network, HyperAdapter(SITES[1], config, network)


def test_the_adapter_is_the_formula():
    network, adapter = made(source="task", tasks=("de", "fr"), blocks=1)
    found = adapter.leave(X, Y, Context(conditions={"task": ["fr", "de", "fr"]}))
    block = network.blocks[0]
    for row, task in enumerate((1, 0, 1)):
        z = torch.cat([network.tasks.weight[task], network.layer.weight[1]])
        h = network.first(z).relu()
        h = h + block.second(block.first(block.norm(h)).relu())
        h = functional.layer_norm(h, (6,)) / math.sqrt(6)
        tensors = {name: head @ h for name, head in network.heads.items()}
        u = functional.layer_norm(Y[row], (32,)) * (1 + tensors["gamma"]) + tensors["beta"]
        narrow = (u @ tensors["down"].reshape(2, 32).T + tensors["bias"]).relu()
        wanted = Y[row] + narrow @ tensors["up"].reshape(32, 2).T + tensors["shift"]
        torch.testing.assert_close(found[row], wanted, rtol=1e-3, atol=1e-3)


def test_an_utterance_gets_an_adapter_of_its_own_from_its_valid_frames():
    check_each_utterance_has_its_own(made()[1], X, Y, close=1e-3)


def test_the_zero_start_is_exact_and_the_other_is_not():
    for initial, same in (("zero", True), ("spread", False)):
        config = HyperAdapterConfig(bottleneck=2, width=6, initial=initial)
        adapter = HyperAdapter(SITES[0], config, HyperNetwork(SITES, config))
        assert torch.equal(adapter.leave(X, Y, Context()), Y) == same


def test_tasks_go_with_their_source():
    with pytest.raises(ConfigError, match="name the tasks if and only if"):
        made(tasks=("de",))
