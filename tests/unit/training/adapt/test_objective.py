from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from speechadapt.adapters.methods.sparse import masks_of
from speechadapt.training.adapt.objective import method_problems
from speechadapt.training.loop import train

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("arm", "parts"),
    [
        ("adapter", {"head", "adapter"}),
        ("head", {"head"}),
        ("full", {"head", "encoder"}),
    ],
)
def test_a_checkpoint_holds_what_the_arm_trains_and_goes_back(
    build: Build, arm: str, parts: set[str]
) -> None:
    objective, other = (build("classify", f"arm={arm}", f"trainer.seed={n}") for n in (1, 2))
    state = objective.state_dict()
    assert {name.split(".")[0] for name in state} == parts
    assert set(objective.trained_parameters()) == parts
    other.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())


def test_frozen_layers_stay_in_evaluation_mode_unless_all_is_trained(build: Build) -> None:
    for arm in ("adapter", "full"):
        objective = build("classify", f"arm={arm}")
        objective.train()
        assert objective.encoder.model.training == (arm == "full")


def test_rates_of_parts_are_told_as_factors_of_the_usual_rate(build: Build) -> None:
    objective = build("classify", "trainer.learning_rate=1e-3", "head_rate=4e-3", "adapter_decay=0")
    groups = objective.groups()
    assert groups["head."].rate == pytest.approx(4)
    assert groups["adapter."].rate == 1
    assert groups["adapter."].weight_decay == 0


def test_a_setting_that_the_method_lacks_is_named(build: Build) -> None:
    config = build("classify").config
    assert method_problems(config) == []
    (problem,) = method_problems(replace(config, adapter={"rnk": 2}))
    assert "rnk" in problem
    (problem,) = method_problems(replace(config, method="loar"))
    assert "lora" in problem
    assert method_problems(replace(config, arm="head", method="loar")) == []


SPARSE = ("method=sparse", "adapter.settings={bottleneck:4}", "adapter.batches=1")
MOSA = ("method=mosa", "adapter.settings={bottleneck:4}")


def test_a_sparse_adapter_chooses_its_masks_by_the_loss_before_the_first_step(
    build: Build, tmp_path: Path
) -> None:
    objective = build("classify", *SPARSE)
    masks = masks_of(objective.handle.module.by_role())
    start = {key: mask.clone() for key, mask in masks.items()}
    train(objective, replace(objective.config.trainer, sitting_s=1e-9), tmp_path)
    assert any(not torch.equal(masks[key], mask) for key, mask in start.items())
    count = objective.trained_parameters()["adapter"]
    assert count == objective.handle.expected_parameters()


@pytest.mark.parametrize("words", [SPARSE, (*MOSA, "trainer.weight_decay=0.5")])
def test_a_stopped_run_goes_on_as_if_nothing_were(
    build: Build, tmp_path: Path, words: tuple[str, ...]
) -> None:
    states = []
    for sitting in (0.0, 1e-9):
        for _ in range(1 if not sitting else 2):
            objective = build("classify", *words)
            config = replace(objective.config.trainer, steps=2, sitting_s=sitting)
            result = train(objective, config, tmp_path / str(sitting))
        assert result.finished
        states.append(objective.state_dict())
    whole, stopped = states
    assert all(torch.equal(stopped[key], tensor) for key, tensor in whole.items())


@pytest.mark.parametrize("task", ["classify", "adapt"])
def test_passes_that_are_to_agree_cost_what_they_disagree(build: Build, task: str) -> None:
    words = (*MOSA, "head_dropout=0")
    losses = []
    for weight in (2.0, 0.0):
        objective = build(task, *words, f"adapter.consistency={weight}")
        with torch.no_grad():
            for parameter in objective.adapter.parameters():
                parameter += 0.3 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(1)
                )
        objective.train()
        torch.manual_seed(4)
        loss, figures = objective(objective.batch(0, 0))
        assert ("disagreement" in figures) == bool(weight)
        losses.append(float(loss.detach()) - weight * figures.get("disagreement", 0.0))
        assert figures.get("disagreement", 1.0) > 0
        objective.eval()
        with torch.no_grad():
            assert "disagreement" not in objective(objective.batch(0, 0))[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
