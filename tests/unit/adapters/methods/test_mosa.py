"""MoSA: experts share a matrix entry by entry, and a step moves only the entries of those drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from speechadapt.adapters.attach import attach
from speechadapt.adapters.hosted import Place, places
from speechadapt.adapters.merge import merge
from speechadapt.adapters.methods.mosa import (
    METHOD,
    Experts,
    MosaConfig,
    make,
    pack,
    resolve,
    unpack,
)
from speechadapt.adapters.spec import Adapter, Context
from speechadapt.core.bind import bind
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.sites import Site

FFN = Site("layer.0.ffn", "fc1", "fc2", 6, 6, tap="norm")
X = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1))


def config_of(**settings: Any) -> MosaConfig:
    given = {"settings": {"bottleneck": 5, "input": "normed"}, **settings}
    config, problems = bind(MosaConfig, given)
    assert problems == []
    return config


def changed(config: MosaConfig) -> Adapter:
    torch.manual_seed(0)
    adapter = make(FFN, config)
    with torch.no_grad():
        for one in adapter.parameters():
            one += torch.randn(one.shape)
    return adapter


def split(adapter: nn.Module) -> dict[str, Place[Experts]]:
    return {place.key: place for place in places(adapter, Experts)}


def matrix(adapter: nn.Module, name: str) -> Tensor:
    weight: Any = adapter.get_submodule(f"bottleneck.{name}").weight
    return weight


@pytest.mark.parametrize("experts", [1, 3, 4])
def test_masks_are_disjoint_and_cover_the_matrix(experts: int) -> None:
    adapter = make(FFN, config_of(experts=experts, share="none"))
    assert split(adapter).keys() == {"bottleneck.down.weight", "bottleneck.up.weight"}
    for place in split(adapter).values():
        counts = torch.bincount(place.rule.owner.flatten().long(), minlength=experts)
        assert int(counts.sum()) == 30
        assert int(counts.max() - counts.min()) <= 1
        assert place.rule.drawn == set()  # none before the first pass


@pytest.mark.parametrize(("share", "experts"), [("down", {"up"}), ("up", {"down"})])
def test_one_side_is_shared_and_always_whole(share: str, experts: set[str]) -> None:
    adapter = changed(config_of(share=share)).train()
    assert {key.split(".")[1] for key in split(adapter)} == experts
    assert torch.equal(matrix(adapter, share), matrix(adapter, share))


@pytest.mark.parametrize(("rule", "share"), [("mean", 0.25), ("union", 1.0)])
def test_not_in_training_all_experts_act(rule: str, share: float) -> None:
    adapter = changed(config_of(merge=rule)).eval()
    (place,) = split(adapter).values()
    found = matrix(adapter, "up")
    torch.testing.assert_close(found, place.rule.start + share * place.trained)
    experts = [
        place.rule.start + place.trained * (place.rule.owner == number) for number in range(4)
    ]
    if rule == "mean":  # what a training pass expects
        torch.testing.assert_close(found, torch.stack(experts).mean(0))
    else:  # every entry as its owner has it
        owners = place.rule.owner.long()[None]
        torch.testing.assert_close(found, torch.stack(experts).gather(0, owners)[0])


def test_a_training_pass_uses_one_expert_drawn_anew() -> None:
    adapter = changed(config_of()).train()
    (place,) = split(adapter).values()
    experts = [
        place.rule.start + place.trained * (place.rule.owner == number) for number in range(4)
    ]
    torch.manual_seed(3)
    drawn = [matrix(adapter, "up") for _ in range(20)]
    used = {next(n for n, one in enumerate(experts) if torch.equal(one, found)) for found in drawn}
    assert len(used) > 2


def step(adapter: Adapter, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    y = adapter.leave(X, X, Context())
    (y - X.flip(0)).square().sum().backward()
    optimiser.step()


def test_a_step_moves_no_entry_of_an_expert_that_was_not_drawn() -> None:
    """Decay and momentum would: the gradient alone does not keep them away."""
    adapter = changed(config_of(share="none")).train()
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=0.1, weight_decay=0.5)
    assert METHOD.after_step is not None
    torch.manual_seed(5)
    strayed = 0
    for number in range(6):
        before = {key: one.trained.detach().clone() for key, one in split(adapter).items()}
        step(adapter, optimiser)
        drawn = {key: set(one.rule.drawn) for key, one in split(adapter).items()}
        others = {
            key: torch.stack([one.rule.owner != n for n in drawn[key]]).all(0)
            for key, one in split(adapter).items()
        }
        for key, one in split(adapter).items():
            assert len(drawn[key]) == 1
            strayed += int((one.trained != before[key])[others[key]].sum())
        METHOD.after_step([adapter], number + 1)
        for key, one in split(adapter).items():
            moved = one.trained != before[key]
            assert not bool(moved[others[key]].any())
            assert bool(moved[~others[key]].all())
    assert strayed > 50


def test_one_change_equals_as_many_copies_of_the_adapter() -> None:
    config = config_of(share="none", experts=3)
    adapter = changed(config).train()
    starts = {key: one.rule.start + 0 for key, one in split(adapter).items()}
    copies = {
        key: [starts[key] + one.trained.detach() * (one.rule.owner == n) for n in range(3)]
        for key, one in split(adapter).items()
    }
    optimiser = torch.optim.SGD(adapter.parameters(), lr=0.01)
    torch.manual_seed(2)
    for number in range(5):
        step(adapter, optimiser)
        for key, one in split(adapter).items():
            (expert,) = one.rule.drawn
            assert one.trained.grad is not None
            copies[key][expert] = copies[key][expert] - 0.01 * one.trained.grad
        assert METHOD.after_step is not None
        METHOD.after_step([adapter], number + 1)
    for key, one in split(adapter).items():
        for expert, copy in enumerate(copies[key]):
            ours = one.rule.start + one.trained * (one.rule.owner == expert)
            torch.testing.assert_close(ours, copy)
            assert bool(copy.isfinite().all())


def test_a_pass_before_tensors_are_loaded_takes_nothing_back() -> None:
    adapter = changed(config_of()).train()
    optimiser = torch.optim.SGD(adapter.parameters(), lr=0.01)
    adapter.leave(X, X, Context())
    loaded = {key: one + 1.0 for key, one in adapter.state_dict().items() if "original" in key}
    adapter.load_state_dict(loaded, strict=False)
    (place,) = split(adapter).values()
    before = place.trained.detach().clone()
    step(adapter, optimiser)
    assert METHOD.after_step is not None
    METHOD.after_step([adapter], 1)
    kept = place.trained == before
    assert int(kept.sum()) >= 15


def test_steps_out_of_training_move_everything() -> None:
    adapter = changed(config_of()).eval()
    (place,) = split(adapter).values()
    before = place.trained.detach().clone()
    step(adapter, torch.optim.SGD(adapter.parameters(), lr=0.1))
    assert METHOD.after_step is not None
    METHOD.after_step([adapter], 1)
    assert bool((place.trained != before).all())


def test_a_file_is_the_hosts_with_the_merged_matrices() -> None:
    adapter, other = changed(config_of()).eval(), make(FFN, config_of()).eval()
    held = {key: one.detach().clone() for key, one in pack(adapter).items()}
    names = [f"bottleneck.{side}.{kind}" for side in ("down", "up") for kind in ("weight", "bias")]
    assert sorted(held) == sorted(names)
    unpack(other, held)
    assert torch.equal(other.leave(X, X, Context()), adapter.leave(X, X, Context()))
    del held["bottleneck.up.weight"]
    with pytest.raises(CheckpointError, match=r"'bottleneck\.up\.weight' is missing"):
        unpack(other, held)


def test_lora_experts_merge_by_what_acts_even_in_training(load, move, frames) -> None:
    encoder = load()
    config = {"host": "lora", "settings": {"rank": 3}, "share": "none"}
    handle = attach(encoder, "mosa", name="m", config=config, roles=["attn.v", "ffn.up"])
    move(handle)
    wanted = frames(encoder, "m")
    handle.module.train()
    merge(encoder, "m")
    assert handle.module.training
    handle.module.eval()
    found = frames(encoder, "m")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_the_wish_that_passes_agree_comes_with_the_settings() -> None:
    assert resolve(config_of()).consistency == 1.0
    assert resolve(config_of(consistency=0.0)).consistency == 0.0
