"""Multi-head routing against its formula, head by head and skill by skill."""

from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.mhr import METHOD, MhrAdapter, MhrConfig, fixed_factors
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import Site, at

SITE = at("layer.0.attn.q", "q", 6, 4)
X, Y = torch.randn(3, 5, 6), torch.randn(3, 5, 4)
TASKS = ("digits", "orders")


def filled(**settings: object) -> MhrAdapter:
    torch.manual_seed(0)
    config = MhrConfig(**{"skills": 3, "heads": 2, "rank": 2, "alpha": 6.0, **settings})
    adapter = MhrAdapter(SITE, config)
    with torch.no_grad():
        for tensor in (*adapter.parameters(), *adapter.buffers()):
            tensor.copy_(torch.randn(tensor.shape))
    assert sum(one.numel() for one in adapter.parameters()) == METHOD.parameters(SITE, config)
    return adapter


def by_hand(adapter: MhrAdapter, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix every head's block of the factors, and put the blocks side by side."""
    downs, ups = [], []
    for head in range(2):
        downs.append(sum(weights[head, s] * adapter.down[head, s] for s in range(3)))
        ups.append(sum(weights[head, s] * adapter.up[head, s] for s in range(3)))
    return torch.cat(downs, dim=1), torch.cat(ups, dim=0)


def test_routing_by_task_is_the_formula_for_every_row():
    adapter = filled(routing="task", tasks=TASKS)
    names = ["orders", "digits", "orders"]
    found = adapter.leave(X, Y, Context(conditions={"task": names}))
    for row, name in enumerate(names):
        open_ = adapter.logits[TASKS.index(name)].sigmoid().reshape(2, 3)
        down, up = by_hand(adapter, open_ / open_.sum(1, keepdim=True))
        wanted = Y[row] + 3.0 * X[row] @ down.T @ up.T
        torch.testing.assert_close(found[row], wanted, rtol=1e-4, atol=1e-4)


def test_routing_by_what_is_heard_reads_valid_frames_alone():
    adapter = filled(routing="pooled")
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    found = adapter.leave(X, Y, Context(mask))
    other = X.clone()
    other[1, 3:] = 50.0
    again = adapter.leave(other, Y, Context(mask))
    torch.testing.assert_close(again[1, :3], found[1, :3])
    alone = adapter.leave(X[1:2, :3], Y[1:2, :3], Context())
    torch.testing.assert_close(alone[0], found[1, :3], rtol=1e-4, atol=1e-4)
    weights = adapter.mixture(X, Context(mask))
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2))
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)


def test_the_mean_gives_all_skills_the_same_weight():
    adapter = filled(routing="mean")
    down, up = by_hand(adapter, torch.full((2, 3), 1 / 3))
    wanted = Y + 3.0 * X @ down.T @ up.T
    torch.testing.assert_close(adapter.leave(X, Y, Context()), wanted, rtol=1e-4, atol=1e-4)
    mean = adapter.down.mean(1)  # of the skills of each head
    torch.testing.assert_close(fixed_factors(adapter)[0], torch.cat(list(mean), dim=1))


def test_one_head_is_polytropon():
    adapter = MhrAdapter(SITE, MhrConfig(skills=3, heads=1, rank=2))
    assert adapter.down.shape == (1, 3, 2, 6)
    assert adapter.up.shape == (1, 3, 4, 2)


def test_the_router_alone_is_trained_where_asked():
    adapter = filled(learns="router")
    names = {key for key, _ in adapter.named_parameters()}
    assert names == {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}
    whole = filled()
    assert adapter.state_dict().keys() == whole.state_dict().keys()
    adapter.load_state_dict(whole.state_dict())
    assert torch.equal(adapter.leave(X, Y, Context()), whole.leave(X, Y, Context()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, r"heads=5 does not divide the width 6 of 'layer.0.attn.q'"),
        ({"routing": "task"}, "name the tasks if and only if"),
        ({"tasks": TASKS}, "name the tasks if and only if"),
        ({"learns": "router", "routing": "mean"}, "leaves nothing to train"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        filled(**settings)


def test_a_span_is_refused():
    with pytest.raises(SiteError, match="is a span from a to b"):
        MhrAdapter(Site("layer.0.ffn", "a", "b", 6, 6), MhrConfig())


def test_unknown_and_missing_tasks_are_named(load, clips):
    encoder = load()
    attach(encoder, "mhr", config={"routing": "task", "tasks": list(TASKS), "heads": 2})
    with pytest.raises(ConfigError, match="was not told the task; it knows digits, orders"):
        encoder.encode(clips)
    with active(encoder, "mhr", {"task": ["digit", "orders", "orders"]}):
        with pytest.raises(ConfigError, match=r"no task 'digit'. Did you mean digits"):
            encoder.encode(clips)


def test_skills_mixed_by_utterance_have_no_fixed_factors():
    with pytest.raises(ConfigError, match="routing=pooled mixes them anew"):
        fixed_factors(filled())
