from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.bind import bind
from speechadapt.training.multitask.config import Config


def problems(**settings: object) -> str:
    return " ".join(bind(Config, {"data": {"train": ["a"]}, **settings})[1])


def test_a_run_without_parts_trains_its_method() -> None:
    config, _ = bind(Config, {})
    assert not config.fuses
    assert config.arm == "adapter"


def test_a_run_with_parts_fuses_them() -> None:
    assert Config(parts={"a": "x", "b": "y"}).fuses
    assert not Config(parts={"a": "x", "b": "y"}, arm="full").fuses
    assert "arm=head fuses none" in problems(arm="head", parts={"a": "x", "b": "y"})


def test_two_stages_take_trained_parts_and_something_to_train() -> None:
    fresh = {"a": "", "b": ""}
    assert "names no folder" in problems(parts=fresh)
    assert "names no folder" not in problems(parts=fresh, learns="joint")
    mean = {"parts": {"a": "x", "b": "y"}, "fusion": {"method": "mean"}}
    assert "leaves nothing to train" in problems(**mean, head="h")
    assert "leaves nothing to train" not in problems(**mean)  # the head is trained
    assert "takes 2 or more" in problems(parts={"a": "x"})


def test_weights_are_taught_where_there_are_some() -> None:
    two = {"parts": {"a": "x", "b": "y"}}
    assert "nothing is fused" in problems(route_weight=1)
    assert "has none of" in problems(**two, fusion={"method": "mean"}, route_weight=1)
    assert "route_weight" not in problems(**two, fusion={"method": "gated"}, route_weight=1)


@pytest.mark.parametrize("temperature", [0, -1])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    assert "temperature" in problems(temperature=temperature)


def test_what_a_run_starts_from_is_among_its_sources() -> None:
    config = Config(parts={"a": "x", "b": ""}, head="h")
    found = {name: path for name, path in config.sources().items() if not name.startswith("base")}
    assert found == {
        "part/a": Path("x/adapter_model.safetensors"),
        "head": Path("h/adapter_model.safetensors"),
    }
