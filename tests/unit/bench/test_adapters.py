"""Adapter methods compared: what a row holds, what does not fit, and going on after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from speechadapt.adapters.attach import attach
from speechadapt.adapters.catalog import method_names
from speechadapt.bench import adapters
from speechadapt.bench.adapter_options import AdapterBench
from speechadapt.bench.adapters import Bench, measure_baseline, measure_method, prepare
from speechadapt.config.resolve import resolve
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.catalog import load_encoder
from tests.tiny_tasks import write_recipe


def scoring(base: Path, **more: object) -> Bench:
    recipe = resolve(write_recipe(base.parent, "adapt", base.parent / "pack"), [base.parent])
    options = AdapterBench(model=str(base), clips=4, rounds=1, share=20.0, steps=1, **more)  # type: ignore[arg-type]
    return prepare(options, replace(recipe.config, alphabet="texts", keep_head=False))


def test_a_method_is_sized_to_the_budget_and_timed_against_both_sides(
    speed: Bench, base: Path
) -> None:
    row = measure_method(speed, "lora")
    encoder = load_encoder(base)
    handle = attach(encoder, "lora", config=row["settings"])
    total = sum(one.numel() for one in encoder.model.parameters())
    assert row["trained"] == handle.num_parameters() <= 0.2 * total
    assert [len(row["rounds"][name]) for name in ("forward", "step")] == [2, 2]
    assert row["merges"]
    assert row["told"] == []


def test_every_method_is_measured(speed: Bench) -> None:
    rows = {name: measure_method(speed, name) for name in method_names()}
    assert all(row["trained"] > 0 for row in rows.values())
    assert rows["cross_attention"]["told"] == ["memory"]
    assert rows["channel_attention"]["told"] == ["recording"]


def test_times_are_ratios_of_a_round_without_the_first(
    speed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # own, other: a round to warm up, then two of forward passes; the same of steps
    clock = iter([9.0, 1.0, 3.0, 2.0, 2.0, 4.0, 9.0, 1.0, 1.0, 4.0, 1.0, 4.0])
    monkeypatch.setattr(adapters, "timed", lambda work, device: (next(clock), None))
    row = measure_method(speed, "lora")
    assert row["rounds"] == {"forward": [1.5, 0.5], "step": [0.25, 0.25]}
    assert (row["forward"], row["step"]) == (1.0, 0.25)


def test_scores_come_from_the_best_rate_of_the_recipe(base: Path) -> None:
    bench = scoring(base, rates="1e-3,1e-2", full_rates="1e-4")
    row = measure_method(bench, "parallel")
    assert set(row["by_rate"]) == {"0.001", "0.01"}
    assert row["score"] == min(row["by_rate"].values())
    assert measure_baseline(bench, "head")["trained"] == 0
    assert measure_baseline(bench, "full")["rate"] == 1e-4


def test_what_the_recipe_cannot_tell_is_not_scored(base: Path) -> None:
    row = measure_method(scoring(base), "cross_attention")
    assert "score" not in row
    assert "memory" in row["unscored"]


def test_a_recipe_of_another_task_is_refused(base: Path) -> None:
    recipe = resolve(write_recipe(base.parent, "ctc", base.parent / "pack"), [base.parent])
    with pytest.raises(ConfigError, match="recipes of the task adapt"):
        prepare(AdapterBench(model=str(base), recipe="adapt/x"), recipe.config)


def test_a_method_that_does_not_fit_says_why(speed: Bench, monkeypatch) -> None:
    def refuse(*args: object, **more: object) -> object:
        raise SiteError("there is no such place")

    monkeypatch.setattr(adapters, "attach", refuse)
    assert measure_method(speed, "lora") == {"method": "lora", "problem": "there is no such place"}
