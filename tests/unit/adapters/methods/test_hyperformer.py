from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.hyperformer import (
    METHOD,
    HyperformerAdapter,
    HyperformerConfig,
    Hypernetwork,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.sites import Site
from tests.unit.adapters.methods.generated import check_each_utterance_has_its_own, fill

SITES = [Site(f"layer.{n}.{part}", "a", "b", 8, 8) for n in range(2) for part in ("attn", "ffn")]
TASKS = ("digits", "orders")
X, Y = torch.randn(3, 5, 8), torch.randn(3, 5, 8)


def made(**settings: object) -> tuple[Hypernetwork, HyperformerAdapter]:
    config = HyperformerConfig(**{"bottleneck": 2, "embedding": 4, "hidden": 6, **settings})
    network = Hypernetwork(SITES, config)
    fill(network, METHOD, SITES, config)
    return network, HyperformerAdapter(SITES[3], config, network)


def test_the_adapter_of_a_task_is_the_formula():
    network, adapter = made(source="task", tasks=TASKS)
    found = adapter.leave(X, Y, Context(conditions={"task": ["orders", "digits", "orders"]}))
    for row, task in enumerate((1, 0, 1)):
        z = [network.tasks.weight[task], network.layer.weight[1], network.position.weight[1]]
        hidden = network.second(network.first(torch.cat(z)).relu())
        inner = functional.layer_norm(hidden, (4,), network.norm.weight, network.norm.bias, 1e-6)
        tensors = {name: head(inner) for name, head in network.heads.items()}
        narrow = Y[row] @ tensors["down"].reshape(2, 8).T + tensors["bias"]
        bent = functional.gelu(narrow, approximate="tanh")
        out = bent @ tensors["up"].reshape(8, 2).T + tensors["shift"]
        added = functional.layer_norm(out, (8,)) * tensors["gamma"] + tensors["beta"]
        torch.testing.assert_close(found[row], Y[row] + added, rtol=1e-3, atol=1e-3)


def test_an_utterance_gets_an_adapter_of_its_own_from_its_valid_frames():
    check_each_utterance_has_its_own(made()[1], X, Y, close=1e-4)


def test_the_published_start_adds_as_much_as_its_spread_says():
    dim, config = 256, HyperformerConfig(initial="normal")
    site = Site("layer.0.ffn", "a", "b", dim, dim)
    torch.manual_seed(0)
    adapter = HyperformerAdapter(site, config, Hypernetwork([site], config))
    y = torch.randn(4, 50, dim)
    added = adapter.leave(y, y, Context()) - y
    # I has the length sqrt(64), so gamma and beta, of heads of deviation 0.01, have 0.08 each
    wanted = 0.01 * math.sqrt(2 * config.embedding)
    assert float(added.detach().square().mean().sqrt()) == pytest.approx(wanted, rel=0.15)


def test_the_published_start_changes_little(load, clips, frames):
    encoder = load()
    handle = attach(encoder, "hyperformer", config={"initial": "normal"})
    base, on = frames(encoder, None), frames(encoder, "hyperformer")
    assert not torch.equal(on, base)
    # every site adds 0.113 of a unit (see above); the frames are normalised to one unit
    most = 0.113 * math.sqrt(len(handle.sites)) * 1.3
    assert float((on - base).norm() / base.norm()) < most


def test_rows_of_unlike_tasks_share_a_batch(load, move, clips, frames):
    encoder = load("w2v_bert")
    config = {"source": "task", "tasks": list(TASKS), "embedding": 6, "hidden": 8}
    move(attach(encoder, "hyperformer", config=config), 0.3)
    rows = ["orders", "digits", "orders"]
    mixed = frames(encoder, "hyperformer", conditions={"task": rows})
    for row, task in enumerate(rows):
        whole = frames(encoder, "hyperformer", conditions={"task": [task] * 3})
        torch.testing.assert_close(mixed[row], whole[row], rtol=0, atol=1e-4)
    other = frames(encoder, "hyperformer", conditions={"task": ["digits"] * 3})
    assert not torch.allclose(mixed[0], other[0], atol=1e-3)
    with active(encoder, "hyperformer", {"task": ["wake"] * 3}):
        with pytest.raises(ConfigError, match="no task 'wake'"):
            encoder.encode(clips)


def test_tasks_go_with_their_source():
    with pytest.raises(ConfigError, match="name the tasks if and only if"):
        made(source="task")
