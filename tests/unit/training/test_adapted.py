from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from speechadapt.training.adapted import method_problems

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
    from dataclasses import replace

    config = build("classify").config
    assert method_problems(config) == []
    (problem,) = method_problems(replace(config, adapter={"rnk": 2}))
    assert "rnk" in problem
    (problem,) = method_problems(replace(config, method="loar"))
    assert "lora" in problem
    assert method_problems(replace(config, arm="head", method="loar")) == []
