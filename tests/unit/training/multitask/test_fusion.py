from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.adapters.handle import attachment, attachments
from speechadapt.core.errors import CheckpointError, SiteError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.models.adapted import Head, save_adapted
from speechadapt.text.alphabet import english
from speechadapt.training.multitask.config import Config
from speechadapt.training.multitask.fusion import (
    attach_fusion,
    begin_from,
    composition_of,
    members,
    routing_loss,
    take_head,
)

Load = Callable[[], Encoder]
TINY = {"bottleneck": 3}


@pytest.fixture
def load(tiny_folder: Callable[[str], Path]) -> Load:
    return lambda: load_encoder(tiny_folder("w2v_bert"))


@pytest.fixture
def saved(load: Load, tmp_path: Path) -> dict[str, str]:
    """Return the folders of two adapters with a head each."""
    folders = {}
    for seed, name in enumerate("ab"):
        encoder = load()
        torch.manual_seed(seed)
        handle = attach(encoder, "parallel", config=TINY, roles=["layer.1.ffn"])
        head = nn.Linear(encoder.dim, len(english()))
        save_adapted(
            tmp_path / name, encoder, handle, head, Head(english(), 0.1), training={}, scores={}
        )
        folders[name] = str(tmp_path / name)
    return folders


def test_parts_of_two_stages_are_frozen_and_those_of_joint_learning_are_not(
    load: Load, saved: dict[str, str]
) -> None:
    for learns in ("two_stage", "joint"):
        encoder = load()
        config = Config(parts=saved, learns=learns, fusion={"method": "gated"})  # type: ignore[arg-type]
        handle = attach_fusion(encoder, config)
        assert str(composition_of(config)) == handle.composition == "fuse(a, b, method=gated)"
        grads = {one.requires_grad for one in attachment(encoder, "a").parameters()}
        assert grads == {learns == "joint"}
        assert set(members(encoder, config)) == (set("ab") if learns == "joint" else set())
        assert all(one.requires_grad for one in handle.parameters())


def test_new_parts_are_made_where_no_folder_is_named(load: Load) -> None:
    encoder = load()
    config = Config(
        parts={"a": "", "b": ""}, learns="joint", method="parallel", adapter=TINY, roles=("ffn",)
    )
    attach_fusion(encoder, config)
    assert set(attachments(encoder)) == {"a", "b", "fusion"}
    downs = [
        attachment(encoder, name).module.tensors()["layer.0.ffn1:bottleneck.down.weight"]
        for name in "ab"
    ]
    assert not torch.equal(*downs)


def test_parts_at_unlike_roles_are_refused(
    load: Load, saved: dict[str, str], tmp_path: Path
) -> None:
    encoder = load()
    store.save(attach(encoder, "parallel", config=TINY, roles=["layer.0.ffn"]), tmp_path / "c")
    with pytest.raises(SiteError, match="wants adapters at the same roles"):
        attach_fusion(load(), Config(parts={**saved, "c": str(tmp_path / "c")}))


def test_what_fits_is_copied_and_the_rest_is_left(load: Load, saved: dict[str, str]) -> None:
    encoder = load()
    handle = attach(encoder, "parallel", config=TINY, roles=["ffn"])
    before = {key: one.clone() for key, one in handle.module.tensors().items()}
    taken = begin_from(handle, Path(saved["a"]))
    assert taken
    assert all(key.startswith("layer.1.ffn") for key in taken)
    stored = store.read(Path(saved["a"])).tensors
    for key, tensor in handle.module.tensors().items():
        assert torch.equal(tensor, stored[key] if key in taken else before[key])
    other = attach(load(), "adapter_bias")
    with pytest.raises(CheckpointError, match="none of its"):
        begin_from(other, Path(saved["a"]))


def test_a_head_is_taken_frozen_with_its_symbols(
    load: Load, saved: dict[str, str], tmp_path: Path
) -> None:
    described, head = take_head(load(), Path(saved["a"]))
    assert described.alphabet == english()
    assert described.margin_s == 0.1
    assert torch.equal(head.weight, store.read(Path(saved["a"])).head["weight"])
    assert not any(one.requires_grad for one in head.parameters())
    store.save(attach(load(), "parallel", config=TINY), tmp_path / "bare")
    with pytest.raises(CheckpointError, match="saved without a head"):
        take_head(load(), tmp_path / "bare")


def test_a_gate_that_is_sure_and_wrong_still_learns() -> None:
    logits = torch.tensor([[0.0, 40.0], [0.0, 0.0]], requires_grad=True)
    loss = routing_loss([logits.softmax(-1)], torch.tensor([0, 1]))
    assert float(loss.detach()) == pytest.approx((40.0 + math.log(2)) / 2)
    loss.backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.tensor([[-0.5, 0.5], [0.25, -0.25]]))
