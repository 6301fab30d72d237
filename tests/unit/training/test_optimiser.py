"""The optimisers: AdamW's groups, and Muon against torch's own."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from speechadapt.adapters.attach import attach
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.objective import Group
from speechadapt.training.optimiser import Muon, clip_norms, make_optimizer, orthogonal_factor
from speechadapt.training.state import load_checkpoint, save_checkpoint


def _module() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.ModuleDict(
        {
            "linear": nn.Linear(6, 4),
            "depthwise": nn.Conv1d(4, 4, 3, groups=4),
            "pointwise": nn.Conv1d(4, 6, 1),
        }
    )
    return nn.ModuleDict(OrderedDict(layers=nn.ModuleList([layer]), head=nn.Linear(4, 3)))


def _backward(module: nn.Module, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)


def test_vectors_are_not_decayed() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    decayed, kept = make_optimizer(module, "adamw", 1e-3, 0.1, (0.9, 0.98)).param_groups
    assert [part.ndim for part in decayed["params"]] == [2]
    assert [part.ndim for part in kept["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)


def test_parts_have_their_own_rate_and_decay() -> None:
    module = _module()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    parts = {"layers.": Group(0.5), "layers.0.linear": Group(2.0, 0.3), "none.": Group(9.0)}
    optimizer = make_optimizer(module, "adamw", 1e-3, 0.1, (0.9, 0.98), parts)
    found = {
        names[id(part)]: (group["factor"], group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for part in group["params"]
    }
    assert len(found) == len(names)
    assert found["head.weight"] == (1.0, 1e-3, 0.1)
    assert found["head.bias"] == (1.0, 1e-3, 0.0)
    assert found["layers.0.pointwise.weight"] == (0.5, 5e-4, 0.1)
    assert found["layers.0.linear.weight"] == (2.0, 2e-3, 0.3)
    assert found["layers.0.linear.bias"] == (2.0, 2e-3, 0.0)
    assert all(group["params"] for group in optimizer.param_groups)


def test_frozen_parameters_are_in_no_group() -> None:
    module = _module()
    module["layers"].requires_grad_(False)
    optimizer = make_optimizer(module, "muon", 1e-3, 0.1, (0.9, 0.98), {"head": Group(3.0)})
    kept = {id(part) for group in optimizer.param_groups for part in group["params"]}
    assert kept == {id(part) for part in module["head"].parameters()}
    assert {group["factor"] for group in optimizer.param_groups} == {3.0}


def test_muon_orthogonalises_the_matrices_of_layers_alone() -> None:
    module = _module()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    hidden, others, vectors = make_optimizer(module, "muon", 1e-3, 0.1, (0.9, 0.98)).param_groups
    assert {names[id(p)] for p in hidden["params"]} == {
        "layers.0.linear.weight",
        "layers.0.pointwise.weight",
    }
    assert {names[id(p)] for p in others["params"]} == {
        "layers.0.depthwise.weight",
        "head.weight",
    }
    assert all(p.ndim == 1 for p in vectors["params"])


def test_muon_orthogonalises_the_matrices_of_adapters(tiny_folder) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    adapter = attach(encoder, "parallel", config={"bottleneck": 4}).module
    hidden, vectors = make_optimizer(adapter, "muon", 1e-3, 0.1, (0.9, 0.98)).param_groups
    assert hidden["orthogonal"]
    assert {id(p) for p in hidden["params"]} == {id(p) for p in adapter.parameters() if p.ndim > 1}
    assert all(p.ndim == 1 for p in vectors["params"])


@pytest.mark.parametrize("shape", [(8, 8), (4, 12), (12, 4)])
def test_the_factor_keeps_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ orthogonal_factor(matrix, steps=10) @ right.T
    values = inner.diagonal()
    assert (inner - torch.diag(values)).abs().max() < 1e-3
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_the_update_agrees_with_torchs_muon() -> None:
    ours, theirs = _layer(), _layer()
    mine = Muon(
        [{"params": [ours], "weight_decay": 0.1, "orthogonal": True}], 0.02, betas=(0.9, 0.98)
    )
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(4):
        gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    # torch iterates in bfloat16
    assert (ours - theirs).abs().max() < 0.02 * 0.2 * 6**0.5 * 4 * 0.1
    assert (ours - _layer()).abs().max() > 0.01


def test_other_groups_step_as_adamw_does() -> None:
    ours, theirs = _module(), _module()
    mine = make_optimizer(ours, "muon", 1e-2, 0.1, (0.9, 0.98))
    reference = make_optimizer(theirs, "adamw", 1e-2, 0.1, (0.9, 0.98))
    for seed in range(3):
        _backward(ours, seed)
        _backward(theirs, seed)
        mine.step()
        reference.step()
    expected = theirs.state_dict()
    moved = {name: value - expected[name] for name, value in ours.state_dict().items()}
    hidden = {"layers.0.linear.weight", "layers.0.pointwise.weight"}
    assert {name for name, change in moved.items() if change.any()} == hidden


def test_a_checkpoint_holds_the_momentum(tmp_path: Path) -> None:
    straight, stopped = _module(), _module()
    whole = make_optimizer(straight, "muon", 1e-2, 0.1, (0.9, 0.98))
    first = make_optimizer(stopped, "muon", 1e-2, 0.1, (0.9, 0.98))
    for seed in range(2):
        for module, optimizer in ((straight, whole), (stopped, first)):
            _backward(module, seed)
            optimizer.step()
    target = save_checkpoint(tmp_path, 2, stopped.state_dict(), first, None, {})
    resumed = _module()
    second = make_optimizer(resumed, "muon", 1e-2, 0.1, (0.9, 0.98))
    load_checkpoint(target, resumed, second)
    for module, optimizer in ((straight, whole), (resumed, second)):
        _backward(module, 7)
        optimizer.step()
    expected = straight.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())


def test_parts_are_clipped_apart_and_the_whole_norm_is_returned() -> None:
    module = nn.ModuleDict({"one": nn.Linear(1, 1, bias=False), "two": nn.Linear(1, 1, bias=False)})
    sizes = {"one": 3.0, "two": 4.0}

    def put() -> None:
        for name, size in sizes.items():
            module[name].weight.grad = torch.tensor([[size]])

    put()
    assert clip_norms(module, ("two.",), 2.0) == pytest.approx(5.0)
    found = [module[name].weight.grad.item() for name in sizes]
    assert found == pytest.approx([2.0, 2.0], rel=1e-5)
    put()
    assert clip_norms(module, (), 2.5) == pytest.approx(5.0)
    found = [module[name].weight.grad.item() for name in sizes]
    assert found == pytest.approx([1.5, 2.0], rel=1e-5)


def _layer() -> Tensor:
    return nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(9)))
