"""Sparse adapters: an exact share is kept, scores that are all zero are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from speechadapt.adapters.hosted import places
from speechadapt.adapters.methods.parallel import METHOD as PARALLEL
from speechadapt.adapters.methods.parallel import ParallelConfig
from speechadapt.adapters.methods.sparse import (
    METHOD,
    Masked,
    SparseConfig,
    held,
    make,
    pack,
    parameters,
    resolve,
    sparse_host,
    unpack,
)
from speechadapt.adapters.spec import Adapter, Context
from speechadapt.core.bind import bind
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.sites import Site

FFN = Site("layer.0.ffn", "fc1", "fc2", 6, 6, tap="norm")
SETTINGS = {"bottleneck": 5, "input": "normed"}
X = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1))
DATA = ("magnitude", "snip", "grasp", "synflow")


def config_of(**settings: Any) -> SparseConfig:
    config, problems = bind(SparseConfig, {"settings": SETTINGS, **settings})
    assert problems == []
    return config


def begun(config: SparseConfig, sites: int = 2, size: float = 1.0) -> list[Adapter]:
    """Return adapters whose masks were chosen by the loss of passing through all of them."""
    torch.manual_seed(0)
    adapters = [make(FFN, config) for _ in range(sites)]
    with torch.no_grad():
        for adapter in adapters:
            for place in places(adapter, Masked):
                place.trained.mul_(size)
    method = resolve(config)
    assert method.begin is not None
    method.begin(adapters, loss_of(adapters))
    return adapters


def loss_of(adapters: list[Adapter]) -> Callable[[int], Tensor]:
    def loss(number: int) -> Tensor:
        y = X + number
        for adapter in adapters:
            y = adapter.leave(y, y, Context())
        return functional.mse_loss(y, X.flip(0))

    return loss


def masks(adapters: list[Adapter]) -> list[Tensor]:
    return [place.rule.mask for one in adapters for place in places(one, Masked)]


@pytest.mark.parametrize(
    ("score", "scope", "density"),
    [
        ("random", "all", 0.6),
        ("magnitude", "matrix", 0.1),
        ("snip", "all", 0.1),
        ("snip", "matrix", 0.6),
        ("snip", "all", 1.0),
        ("grasp", "all", 0.6),
        ("synflow", "all", 0.6),
    ],
)
def test_the_share_kept_is_exact(score: str, scope: str, density: float) -> None:
    config = config_of(score=score, scope=scope, density=density)
    adapters = begun(config)
    kept = [int(one.sum()) for one in masks(adapters)]
    each = round(density * 30)
    assert sum(kept) == 4 * each
    if scope == "matrix" or score == "random":
        assert kept == [each] * 4
    total = sum(one.numel() for adapter in adapters for one in adapter.parameters())
    assert total - held(adapters) == 2 * parameters(FFN, config) == 4 * each + 2 * 11


def test_entries_that_are_not_kept_are_zero_whatever_the_optimiser_does() -> None:
    adapters = begun(config_of(density=0.4))
    optimiser = torch.optim.AdamW([p for a in adapters for p in a.parameters()], 0.1)
    optimiser.param_groups[0]["weight_decay"] = 0.5
    before = [one.clone() for one in masks(adapters)]
    for _ in range(3):
        optimiser.zero_grad()
        loss_of(adapters)(0).backward()
        optimiser.step()
    for one, mask in zip(masks(adapters), before, strict=True):
        assert torch.equal(one, mask)
    for adapter in adapters:
        for side in ("down", "up"):
            module = adapter.get_submodule(f"bottleneck.{side}")
            (place,) = places(module, Masked)
            weight: Any = module.weight
            assert not bool(weight[~place.rule.mask].any())
            assert bool(weight[place.rule.mask].all())


def test_snip_keeps_what_the_loss_feels_most() -> None:
    config = config_of(density=0.3, batches=2)
    adapters = begun(config, sites=1)
    own = list(places(adapters[0], Masked))
    for place in own:
        place.rule.mask.fill_(True)
    loss = loss_of(adapters)
    gradients = torch.autograd.grad(loss(0) + loss(1), [place.trained for place in own])
    scores = [(p.trained * g).detach().abs() for p, g in zip(own, gradients, strict=True)]
    again = begun(config, sites=1)
    flat = torch.cat([one.flatten() for one in scores])
    mask = torch.cat([one.flatten() for one in masks(again)])
    assert flat[mask].min() > flat[~mask].max()


@pytest.mark.parametrize("score", DATA)
@pytest.mark.parametrize("host", ["parallel", "lora"])
def test_a_projection_that_starts_at_zero_is_refused_with_the_way_out(
    score: str, host: str
) -> None:
    settings = SETTINGS if host == "parallel" else {"rank": 2}
    config = config_of(host=host, settings=settings, score=score, start="host")
    site = FFN if host == "parallel" else Site("layer.0.attn.q", "q", "q", 6, 6)
    adapters = [make(site, config)]
    method = resolve(config)
    assert method.begin is not None
    assert method.starts_as_identity
    if score == "snip":  # the fact behind it: one side has no weights, the other no gradients
        own = list(places(adapters[0], Masked))
        found = torch.autograd.grad(loss_of(adapters)(0), [place.trained for place in own])
        scores = [p.trained.detach() * g for p, g in zip(own, found, strict=True)]
        assert not any(bool(one.any()) for one in scores)
    with pytest.raises(ConfigError, match=r"all its scores are 0.* Set adapter\.start=normal"):
        method.begin(adapters, loss_of(adapters))
    woken = config_of(host=host, settings=settings, score=score)
    method = resolve(woken)
    assert method.begin is not None
    assert not method.starts_as_identity
    awake = [make(site, woken)]
    method.begin(awake, loss_of(awake))


def test_a_step_before_any_scores_is_refused() -> None:
    adapters = [make(FFN, config_of())]
    method = resolve(config_of())
    assert method.after_step is not None
    with pytest.raises(ConfigError, match="before any scores were taken"):
        method.after_step(adapters, 1)
    method.after_step(begun(config_of()), 1)
    method.after_step([make(FFN, config_of(score="random"))], 1)


@pytest.mark.parametrize("score", ["snip", "grasp"])
def test_rounds_end_at_the_same_share_and_revive_nothing(score: str) -> None:
    # large weights, so that those taken away in one round matter to the scores of the next
    shares = [(0.7, 1), (0.7, 3), (0.7 ** (1 / 3), 1)]
    configs = [config_of(density=share, rounds=n, score=score) for share, n in shares]
    one, three, first = (masks(begun(config, size=30.0)) for config in configs)
    assert sum(int(mask.sum()) for mask in one) == sum(int(mask.sum()) for mask in three)
    assert any(not torch.equal(a, b) for a, b in zip(one, three, strict=True))
    assert not any(bool((a & ~b).any()) for a, b in zip(three, first, strict=True))


def test_large_sparse_has_the_live_entries_of_the_dense_host() -> None:
    dense = ParallelConfig(bottleneck=64, input="normed")
    large = config_of(settings={"bottleneck": 64, "input": "normed"}, density=0.2, large=True)
    assert sparse_host(large)[1].bottleneck == 320
    wide = Site("layer.0.ffn", "fc1", "fc2", 768, 768)
    matrices = 2 * 768 * 64
    assert PARALLEL.parameters(wide, dense) == matrices + 64 + 768
    assert parameters(wide, large) == matrices + 320 + 768
    lora = sparse_host(config_of(host="lora", settings={"rank": 4}, density=0.5, large=True))[1]
    assert (lora.rank, lora.alpha) == (8, 16.0)
    _, (problem,) = bind(SparseConfig, {"host": "adapter_bias", "large": True})
    assert "shared by all sites" in problem


def test_a_file_holds_the_kept_entries_and_a_bit_for_each() -> None:
    config = config_of(density=0.4)
    (adapter,) = begun(config, sites=1)
    stored = {key: one.detach().clone() for key, one in pack(adapter).items()}
    matrices = {key: one for key, one in stored.items() if "mask" in key or "values" in key}
    size = sum(one.numel() * one.element_size() for one in matrices.values())
    assert size == 24 * 4 + 2 * 4  # 24 of 60 entries, and twice 30 bits
    other = make(FFN, config_of(density=0.4, score="random"))
    unpack(other, stored)
    y = torch.randn(2, 3, 6)
    assert torch.equal(other.leave(y, y, Context()), adapter.leave(y, y, Context()))
    assert all(torch.equal(a, b) for a, b in zip(masks([other]), masks([adapter]), strict=True))
    key = "bottleneck.up.weight.values"
    for change, message in (
        ({key: stored[key][1:]}, "are wanted"),
        ({"bottleneck.up.weight.mask": torch.zeros(5)}, r"is \[5\], but \[4\] are wanted"),
        ({key: stored[key].long()}, "is stored as torch.uint8 and torch.int64"),
    ):
        with pytest.raises(CheckpointError, match=message):
            unpack(make(FFN, config), {**stored, **change})


def test_density_is_the_share_kept_and_never_zero() -> None:
    assert METHOD.config().density == 0.6
    _, (problem,) = bind(SparseConfig, {"density": 0})
    assert "above 0 and at most 1" in problem
