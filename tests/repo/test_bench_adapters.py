"""`tools/bench_adapters.py`: the sides of a comparison do the same work, and figures follow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_adapters
import bench_steps
import pytest
import torch
from bench_claims import ADAPTERS, CLAIMS
from bench_steps import Setting, Trainer

from speechadapt.core.errors import ConfigError

SETTING = Setting("quick", 0.5, 2, 4, "float32", "cpu", 1)
UPPER = replace(SETTING, upper=True)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the result of a smoke run, without fresh processes."""
    output = tmp_path_factory.mktemp("bench") / "adapters.json"
    sizes = {"ours": 30, "peft": 40}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_adapters, "peak_growth", lambda side, setting: sizes[side])
        words = ["--quick", "--threads", "1", "--seconds", "0.5", "--steps", "1"]
        assert bench_adapters.main([*words, "--output", str(output)]) == 0
    return json.loads(output.read_text())


def test_every_claim_about_adapters_is_measured(report: dict[str, Any]) -> None:
    wanted = [name for name, claim in CLAIMS.items() if claim.file == ADAPTERS]
    assert [one["claim"] for one in report["figures"]] == wanted
    assert report["quick"] is True
    assert report["threads"] == 1


def test_figures_follow_from_the_seconds(report: dict[str, Any]) -> None:
    figures = {one["claim"]: one["value"] for one in report["figures"]}
    training = report["details"]["training"]
    for claim, part, side in (
        ("lora_step", "all_layers", "ours"),
        ("lora_reuse", "upper_half", "reuse"),
    ):
        seconds = training[part]["seconds_per_step"]
        pairs = zip(seconds[side], seconds["peft"], strict=True)
        ratios = sorted(one / other for one, other in pairs)
        assert figures[claim] == pytest.approx(ratios[1], rel=0.01)
    assert figures["lora_memory"] == 0.75
    assert figures["lora_reuse_build"] > 0


def test_a_merged_adapter_costs_less_than_an_unmerged_one(report: dict[str, Any]) -> None:
    operations = report["details"]["forward"]["operations"]
    assert operations["bare"] <= operations["merged"] < operations["parallel"]


def test_the_smoke_run_measures_small_geometries_alone(report: dict[str, Any]) -> None:
    details = report["details"]
    parts = [details["training"], details["forward"], *details["native_length"].values()]
    assert {part["geometry"] for part in parts} == {"quick"}


def test_both_sides_train_the_same_maps_from_the_same_loss() -> None:
    ours, peft = (Trainer(side, SETTING) for side in ("ours", "peft"))
    shapes = [sorted(tuple(one.shape) for one in side.parameters) for side in (ours, peft)]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 2 * 2 * 2  # layers, query and value, down and up
    losses = [[side.step() for _ in range(3)] for side in (ours, peft)]
    assert losses[0][0] == losses[1][0]
    assert losses[0][2] < losses[0][0]
    assert losses[1][2] < losses[1][0]


def test_keeping_the_lower_half_changes_no_loss() -> None:
    ours, reuse = (Trainer(side, UPPER) for side in ("ours", "reuse"))
    for trainer in (ours, reuse):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            for tensor in trainer.parameters:
                tensor.normal_(std=0.2)
    assert reuse.reuse is not None
    assert reuse.reuse.prefix.depth == 1
    for _ in range(2):
        assert ours.step() == reuse.step()


def test_sides_that_do_not_do_the_same_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench_steps.inject_peft
    monkeypatch.setattr(
        bench_steps, "inject_peft", lambda encoder, roles, rank: real(encoder, roles[:1], rank)
    )
    with pytest.raises(ConfigError, match="sides of one comparison must compute the same"):
        bench_steps.time_steps(("ours", "peft"), SETTING, 1, 1)


def test_a_step_keeps_as_many_bytes_as_peft_does() -> None:
    kept = {side: bench_steps.saved_bytes(Trainer(side, SETTING)) for side in ("ours", "peft")}
    assert kept["peft"] > 0
    assert kept["ours"] <= 1.05 * kept["peft"]


def test_a_process_grows_while_it_trains() -> None:
    grown = bench_steps.grow("ours", replace(SETTING, seconds=4.0, batch=8))
    assert grown > bench_steps.MB


def test_sides_take_turns_and_change_who_goes_first() -> None:
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = bench_steps.take_turns(sides, 3, warm_up=1)
    assert calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [len(one) for one in seconds.values()] == [3, 3]


def test_what_went_wrong_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*words: object) -> None:
        raise ConfigError("sides differ.")

    monkeypatch.setattr(bench_adapters, "measure", refuse)
    assert bench_adapters.main(["--quick", "--output", str(tmp_path / "x.json")]) == 2
    assert "bench_adapters: sides differ." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
