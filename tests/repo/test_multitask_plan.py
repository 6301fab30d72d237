"""The plan of the comparison of ways to serve many tasks: what is run, when and how often."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import multitask_plan
import pytest
from grid_plan import Run
from multitask_plan import Plan

from speechadapt.config.shipped import recipe_names
from speechadapt.core.errors import ConfigError

PLAN = Plan(("a", "b"), (0.1, 0.2), (1, 2))


def done(*runs: tuple[str, float, int, float]) -> dict[Run, Mapping[str, Any]]:
    return {Run(arm, rate, seed): {"dev": dev} for arm, rate, seed, dev in runs}


def everything(*arms: str) -> dict[Run, Mapping[str, Any]]:
    """Return finished runs of arms: the second rate is best, both seeds are done."""
    rows = [(arm, 0.1, 1, 0.9) for arm in arms] + [(arm, 0.2, 1, 0.5) for arm in arms]
    return done(*rows, *((arm, 0.2, 2, 0.5) for arm in arms))


def test_every_arm_is_a_recipe() -> None:
    known = set(recipe_names())
    assert {multitask_plan.recipe_of(arm) for arm in PLAN.arms} <= known
    assert len(set(PLAN.arms)) == len(PLAN.arms)
    assert multitask_plan.task_of("single:ar_digits") == "ar_digits"
    assert multitask_plan.task_of("shared") == ""


def test_the_head_comes_first_and_all_else_waits_for_it() -> None:
    assert {run.arm for run in PLAN.missing(PLAN.arms, {})} == {"head"}
    head = done(("head", 0.1, 1, 0.4), ("head", 0.2, 1, 0.5))
    after = [run.arm for run in PLAN.missing(PLAN.arms, head)]
    assert "head" not in after  # one seed serves all
    assert {"single:a", "shared", "full", "joint"} <= set(after)
    assert not {"gated", "attention", "mhr_z"} & set(after)


def test_an_arm_waits_for_what_it_starts_from_of_its_seed() -> None:
    runs = everything("head", "single:a", "mhr_task")
    assert not PLAN.missing(["gated"], runs)
    runs |= done(("single:b", 0.1, 1, 0.9), ("single:b", 0.2, 1, 0.5))
    assert [run.seed for run in PLAN.missing(["gated"], runs)] == [1, 1]
    runs |= done(("gated", 0.1, 1, 0.3), ("gated", 0.2, 1, 0.4))
    assert not PLAN.missing(["gated"], runs)  # the second seed lacks single:b
    runs |= done(("single:b", 0.2, 2, 0.5))
    assert PLAN.missing(["gated"], runs) == [Run("gated", 0.1, 2)]
    assert {run.rate for run in PLAN.missing(["mhr_z"], runs)} == {0.1, 0.2}


def test_rates_are_chosen_for_all_arms_before_other_seeds_are_run() -> None:
    runs = everything("head") | done(("shared", 0.1, 1, 0.2), ("shared", 0.2, 1, 0.2))
    missing = PLAN.missing(["shared", "gated", "joint"], runs)
    assert missing == [Run("joint", 0.1, 1), Run("joint", 0.2, 1), Run("shared", 0.1, 2)]
    assert PLAN.missing(["hyper_small", "shared"], runs)[0] == Run("shared", 0.1, 2)


def test_full_fine_tuning_is_tried_at_a_lower_rate_too() -> None:
    assert PLAN.rates_of("shared") == (0.1, 0.2)
    lowest, *others = PLAN.rates_of("full")
    assert tuple(others) == PLAN.rates
    assert lowest < min(multitask_plan.RATES)
    runs = done(("full", 0.1, 1, 0.3), ("full", 0.2, 1, 0.4))
    assert PLAN.missing(["full"], runs | everything("head"))[0] == Run("full", lowest, 1)


def test_low_rank_adapters_are_tried_at_a_higher_rate_and_have_an_oracle_of_their_own() -> None:
    assert PLAN.rates_of("single:a") == PLAN.rates
    assert max(PLAN.rates_of("single_lora:a")) > max(multitask_plan.RATES)
    assert [multitask_plan.oracle_of(way) for way in ("retrieval", "retrieval_lora", "mhr")] == [
        "oracle",
        "oracle_lora",
        "oracle",
    ]


def test_the_rate_is_the_best_on_dev_of_the_first_seed() -> None:
    runs = done(("shared", 0.1, 1, 0.5))
    assert PLAN.of_seed("shared", 1, runs) is None
    runs |= done(("shared", 0.2, 1, 0.4))
    assert PLAN.of_seed("shared", 1, runs) == Run("shared", 0.2, 1)
    assert PLAN.of_seed("shared", 2, runs) is None
    assert PLAN.of_seed("head", 2, everything("head")) == Run("head", 0.2, 1)
    assert not PLAN.finished("shared", runs)
    assert PLAN.finished("shared", everything("shared"))


def test_arms_are_named_one_by_one_or_by_their_kind() -> None:
    assert PLAN.chosen(["single", "full"]) == ("single:a", "single:b", "full")
    assert PLAN.chosen([]) == PLAN.arms
    with pytest.raises(ConfigError, match=r"there is no arm 'shard'\. Did you mean shared"):
        PLAN.chosen(["shard"])


def test_another_suite_or_base_is_another_protocol(tmp_path: Path) -> None:
    versions = {
        multitask_plan.protocol("s", "w", (0.1,)),
        multitask_plan.protocol("t", "w", (0.1,)),
        multitask_plan.protocol("s", "v", (0.1,)),
        multitask_plan.protocol("s", "w", (0.2,)),
    }
    assert len(versions) == 4
    file = tmp_path / "lines.jsonl"
    file.write_text('{"protocol": "a"}\n{"protocol": "b"}\n')
    assert multitask_plan.read_results(file, "b") == [{"protocol": "b"}]
