from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from speechadapt.adapters.attach import build
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.adapt.budget import (
    Budget,
    Pace,
    measure_pace,
    parse_budget,
    size_adapter,
)
from tests.toy_objective import Regression


@pytest.fixture(scope="module")
def encoder(tiny_folder: Callable[[str], Path]) -> Encoder:
    return load_encoder(tiny_folder("w2v_bert"))


@pytest.mark.parametrize(
    ("words", "budget"),
    [
        (["200k"], Budget(parameters=200e3)),
        (["1.5M"], Budget(parameters=1.5e6)),
        (["4096"], Budget(parameters=4096.0)),
        (["2%", "2h"], Budget(share=0.02, minutes=120.0)),
        (["90s"], Budget(minutes=1.5)),
        ([], Budget()),
    ],
)
def test_budgets_are_parameters_shares_and_times(words: list[str], budget: Budget) -> None:
    assert parse_budget(words) == budget


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lots"], r"takes parameters \(200k, 1.5M, 2%\) or time \(20min, 2h\), got 'lots'"),
        (["0k"], "got '0k'"),
        (["20m"], "got '20m'"),
        (["-3"], "got '-3'"),
        (["20min", "1h"], "twice for minutes; '1h' is the second"),
    ],
)
def test_other_words_are_no_budget(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_budget(words)


def test_the_smaller_of_two_limits_counts() -> None:
    assert Budget(parameters=500.0, share=0.01).most(20_000) == 200
    assert Budget(minutes=3.0).most(20_000) is None


@pytest.mark.parametrize("method", ["lora", "pissa", "parallel", "houlsby", "hydra_heads"])
@pytest.mark.parametrize("most", [3000.0, 9000.0])
def test_the_widest_adapter_within_the_budget_is_taken(
    method: str, most: float, encoder: Encoder
) -> None:
    size = size_adapter(encoder, method, {}, (), "none", most)
    handle = build(encoder, method, config=size.settings)
    assert handle.num_parameters() == size.parameters <= most
    widths = {name: value + 1 for name, value in size.settings.items() if name != "alpha"}
    wider = size_adapter(encoder, method, widths, (), "none", 1e9)
    full = 32 in size.settings.values()
    assert wider.parameters > most or full


def test_the_strength_stays_in_proportion_and_given_settings_stay(encoder: Encoder) -> None:
    size = size_adapter(encoder, "lora", {}, ("attn.q",), "none", 2e3)
    assert size.settings["alpha"] == size.settings["rank"] > 1
    given = size_adapter(encoder, "lora", {"alpha": 3.0}, ("attn.q",), "none", 2e3)
    assert given.settings["alpha"] == 3.0
    fixed = size_adapter(encoder, "lora", {"rank": 2}, ("attn.q",), "none", 2e3)
    assert fixed.settings == {"rank": 2}
    with_norms = size_adapter(encoder, "lora", {"rank": 2}, ("attn.q",), "adapted", 2e3)
    assert with_norms.parameters > fixed.parameters


def test_a_method_over_another_is_counted_where_its_host_stands(encoder: Encoder) -> None:
    given = {"host": "lora", "settings": {"rank": 3}}
    size = size_adapter(encoder, "low_bit", given, (), "none", 1e9)
    handle = build(encoder, "low_bit", config=size.settings)
    plain = build(encoder, "lora", config={"rank": 3})
    assert size.parameters == handle.num_parameters() == plain.num_parameters()


def test_a_budget_that_nothing_fits_is_refused_unless_it_is_only_a_wish(encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="50 parameters was given, but the smallest adapter"):
        size_adapter(encoder, "lora", {}, (), "none", 50.0)
    assert size_adapter(encoder, "lora", {}, (), "none", 50.0, firm=False).settings["rank"] == 1


def test_times_are_shared_between_steps_and_scores() -> None:
    pace = Pace(step_s=0.5, evaluation_s=3.0)
    assert pace.seconds(10, 2) == 11.0
    assert pace.evaluations(minutes=1.0, usual=20) == 5
    assert pace.steps(minutes=1.0, evaluations=5) == 90


def test_a_measured_pace_changes_nothing_that_is_trained() -> None:
    objective = Regression(spy=lambda passes: time.sleep(0.02))
    before = {name: part.clone() for name, part in objective.state_dict().items()}
    pace = measure_pace(objective, accumulate=3)
    assert 0.05 < pace.step_s < 5.0
    assert pace.evaluation_s < pace.step_s
    assert all(torch.equal(part, before[name]) for name, part in objective.state_dict().items())
    assert all(part.grad is None for part in objective.parameters())
