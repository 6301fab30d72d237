"""`tools/grid.py`: every arm is treated alike, nothing is run twice, and test is looked at last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grid
import grid_languages
import grid_plan
import grid_report
import grid_tables
import pytest
import torch
from grid_languages import METHODS, PLAN, SHARE, Language
from grid_plan import Plan, Run

from speechadapt.adapters.catalog import method
from speechadapt.core.errors import ConfigError
from speechadapt.models.build import load
from speechadapt.training.adapt.budget import size_adapter
from speechadapt.training.adapt.config import Config
from speechadapt.training.adapt.parts import load_base
from tests import synthetic
from tests.tiny_tasks import SHORT, base_folder

FACTS = {"processor": "p", "threads": 1, "date": "d", "command": "c"}
ARMS = ("full", "head", "lora")
RATES, SEEDS = PLAN.rates, PLAN.seeds
PLAIN = (
    "language=en",
    "alphabet=texts",
    "keep_head=false",
    "data.train=[tones]",
    "data.noise=[]",
    "data.responses=[]",
    "data.dev=[tones]",
)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def noted(arm: str, rate: float, seed: int, dev: float) -> dict[str, Any]:
    """Return a line of a finished run."""
    return {"kind": "run", "arm": arm, "rate": rate, "seed": seed, "dev": dev}


def finished(*lines: Mapping[str, Any]) -> dict[Run, Mapping[str, Any]]:
    return grid_plan.of_kind(lines, "run")


def searched(arm: str, *errors: float) -> list[dict[str, Any]]:
    return [noted(arm, rate, SEEDS[0], dev) for rate, dev in zip(RATES, errors, strict=True)]


def test_rates_are_searched_with_one_seed_before_other_seeds_are_run() -> None:
    missing = PLAN.missing(ARMS, {})
    assert missing == [Run(arm, rate, SEEDS[0]) for arm in ARMS for rate in RATES]
    part = finished(*searched("full", 0.5, 0.4, 0.3, 0.6))
    others = [Run("full", RATES[2], seed) for seed in SEEDS[1:]]
    assert PLAN.missing(ARMS, part) == [*others, *missing[len(RATES) :]]
    whole = finished(
        *searched("full", 0.5, 0.4, 0.3, 0.6),
        *searched("head", 0.9, 0.8, 0.8, 0.9),  # of equal errors the lower rate
        *searched("lora", 0.5, 0.4, 0.6, 0.39),
    )
    best = {"full": RATES[2], "head": RATES[1], "lora": RATES[3]}
    for arm, rate in best.items():
        assert PLAN.best_rates(arm, whole) == dict.fromkeys(SEEDS, rate)
    left = PLAN.missing(ARMS, whole)
    assert left == [Run(arm, best[arm], seed) for arm in ARMS for seed in SEEDS[1:]]


def test_folds_choose_their_rates_apart_and_followers_take_them() -> None:
    plan = Plan(("lora", "wide"), (0.1, 0.2), (1, 2), each=True, leaders={"wide": "lora"})
    missing = plan.missing(plan.arms, {})
    assert missing == [Run("lora", rate, fold) for fold in (1, 2) for rate in (0.1, 0.2)]
    errors = {(0.1, 1): 0.5, (0.2, 1): 0.4, (0.1, 2): 0.3}
    lines = [noted("lora", rate, fold, dev) for (rate, fold), dev in errors.items()]
    assert plan.best_rates("wide", finished(*lines)) == {1: 0.2}
    assert plan.missing(["wide"], finished(*lines)) == [Run("lora", 0.2, 2)]
    lines.append(noted("lora", 0.2, 2, 0.35))
    assert plan.finished(plan.arms, finished(*lines)) == ["lora"]
    chosen = [Run("wide", 0.2, 1), Run("wide", 0.1, 2)]
    assert plan.missing(plan.arms, finished(*lines)) == chosen
    assert plan.chosen(["wide"], finished(*lines)) == chosen


def test_the_best_adapter_has_the_lowest_mean_over_the_seeds() -> None:
    names = ["full", "lora", "houlsby"]
    lines = [*searched("full", 0.1, 0.1, 0.1, 0.1), *searched("lora", 0.2, 0.3, 0.3, 0.3)]
    lines += searched("houlsby", 0.3, 0.25, 0.3, 0.3)
    seeds = [noted("lora", RATES[0], seed, 0.4) for seed in SEEDS[1:]]
    assert PLAN.best_adapter(names, finished(*lines, *seeds)) == "lora"
    seeds += [noted("houlsby", RATES[1], seed, 0.25) for seed in SEEDS[1:]]
    assert PLAN.best_adapter(names, finished(*lines, *seeds[:1])) is None
    seeds += [noted("full", RATES[0], seed, 0.0) for seed in SEEDS[1:]]
    assert PLAN.best_adapter(names, finished(*lines, *seeds)) == "houlsby"


def test_every_arm_is_a_method_that_needs_nothing_beside_transcripts() -> None:
    for name in METHODS:
        assert not method(name).needs
    assert {"lora", "pissa", "hydra_heads", "houlsby", "native_length"} <= set(METHODS)


def test_lines_of_another_protocol_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    same = {"language": "es", "protocol": "b"}
    rows = [{"language": "es", "protocol": "a"}, same, {"language": "zh", "protocol": "b"}]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert grid_plan.read_results(file, "language", "es", "b") == [same]
    assert grid_plan.read_results(tmp_path / "none.jsonl", "language", "es", "b") == []
    spanish = Language("es")
    assert spanish.protocol("w") == Language("es").protocol("w")
    assert spanish.protocol("w") != spanish.protocol("v")
    assert spanish.protocol("w") != Language("zh").protocol("w")
    assert spanish.protocol("w") != Language("es", share=0.1).protocol("w")
    with pytest.raises(ConfigError, match="there is no language 'ez'"):
        Language("ez")


def test_each_language_has_one_budget_for_all_arms() -> None:
    encoder, _ = load_base("", "full")
    whole = sum(part.numel() for part in encoder.model.parameters())
    study = Language("es")
    study._encoder = encoder
    small = {"adapter_bias", "native_length"}  # have no width, or none that counts here
    for name in METHODS:
        config = study.config(Config(), Run(name, 1e-3, 1))
        made = size_adapter(encoder, name, config.adapter, (), "none", float(whole))
        share = made.parameters / whole
        assert share <= SHARE
        assert (share >= 0.02) == (name not in small), f"{name}: {share:.2%}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> grid.Grid:
    """Return a grid of three arms, two rates and two seeds on a tiny model and made speech."""
    root = synthetic.write_pack(tmp_path / "pack")
    manifest = root / "manifests" / "tones.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    held = [
        row | {"split": "test", "id": f"{row['id']}-t"} for row in rows if row["split"] == "dev"
    ]
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, *held]))
    monkeypatch.setattr(Language, "cost", cheap)
    words = [f"data.root={root}", f"base={base_folder(tmp_path)}", *PLAIN, *SHORT]
    # the budget is of an encoder smaller than its adapters
    study = Language("es", Plan(ARMS, RATES[:2], SEEDS[:2]), share=1.0)
    return grid.Grid(study, tmp_path / "runs", tmp_path / "lines.jsonl", words, FACTS)


def cheap(study: Language, config: Config) -> dict[str, Any]:
    """Return a cost that nobody measured."""
    return {"step_s": 0.5, "memory": 3 << 20}


def test_a_grid_is_trained_in_sittings_and_scored_once(
    world: grid.Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.go(0.0)
    assert not world.lines()  # no time left, nothing begun
    assert world.train(world.missing()[0])
    with pytest.raises(ConfigError, match=r"'full', of which full-0.003-s1 is missing"):
        grid_report.report(world)
    before = world.lines()
    world.go(None)
    lines = world.lines()
    assert lines[: len(before)] == before
    assert [one["kind"] for one in lines] == ["run"] * (3 * 2 + 3)
    assert not world.missing()
    done = {Run(one["arm"], one["rate"], one["seed"]) for one in lines}
    assert len(done) == len(lines)
    assert {run.seed for run in done} == set(SEEDS[:2])
    full, lora = (next(one for one in lines if one["arm"] == arm) for arm in ("full", "lora"))
    assert full["trained"] == full["encoder"] > lora["trained"] > 0
    assert next(one for one in lines if one["arm"] == "head")["trained"] == 0
    assert lora["merges"]
    assert not full["merges"]

    monkeypatch.setattr(grid_languages, "load", count := Counted(load))
    grid_report.report(world)
    assert count.calls == len(ARMS) * 2
    grid_report.report(world)
    assert count.calls == len(ARMS) * 2  # test was looked at once
    page = world.results.with_suffix(".md").read_text()
    assert page.count("| `") == 2 * len(ARMS)  # on test, and by rate
    assert "Best adapter on dev of the 1 above: `lora`" in page

    # dev and test are the same recordings here, so the saved folder repeats what training saw
    runs, tests = (grid_plan.of_kind(world.lines(), kind) for kind in ("run", "test"))
    for run, test in tests.items():
        assert len(test["edits"]) == len(test["units"]) == len(test["speakers"]) == 2
        assert test[test["score"]] == sum(test["edits"]) / sum(test["units"])
        assert test["cer"] == pytest.approx(runs[run]["dev"], abs=0.1 * (run.arm == "full"))


class Counted:
    """Calls a function and counts the calls."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        return self.function(*arguments, **named)


def test_arms_of_a_seed_see_the_same_batches(world: grid.Grid) -> None:
    world._batches.clear()
    seen = [
        world.study.build(world.config(run), run, world._batches).batch(0, 0)
        for run in (Run("full", RATES[0], 1), Run("lora", RATES[0], 1), Run("lora", RATES[0], 2))
    ]
    assert seen[0]["features"] is seen[1]["features"]
    assert seen[0]["labels"].tolist() == seen[1]["labels"].tolist()
    assert len(world._batches) == 2


def test_a_cost_is_measured_without_leaving_a_run(world: grid.Grid) -> None:
    run = Run("lora", RATES[0], 1)
    found = grid_languages.cost(world.config(run), 1)
    assert found["step_s"] > 0
    assert found["memory"] is None or found["memory"] >= 0
    assert not world.folder.exists()


def scored(**edits: list[int]) -> list[dict[str, Any]]:
    """Return all lines of three arms with these edits in two items of five units."""
    lines = []
    dev = {"full": 0.2, "lora": 0.1, "houlsby": 0.3}
    for arm in dev:
        facts = FACTS | {
            "steps": 2,
            "dev_items": 2,
            "score": "cer",
            "trained": 4,
            "encoder": 100,
            "file_bytes": 2000,
            "merges": arm == "lora",
        }
        lines += [one | facts for one in searched(arm, *[dev[arm]] * len(RATES))]
        lines += [noted(arm, RATES[0], seed, dev[arm]) | facts for seed in SEEDS[1:]]
        score = {"units": [5, 5], "speakers": ["a", "a"], "score": "cer", "edits": edits[arm]}
        for seed in SEEDS:
            lines.append(noted(arm, RATES[0], seed, 0.0) | score | {"kind": "test"})
    return lines


def test_the_verdict_compares_the_best_on_dev_with_full_fine_tuning() -> None:
    lines = scored(full=[2, 2], lora=[3, 2], houlsby=[1, 1])
    title, _, _, table, verdict, _, search = grid_tables.section("es", PLAN, lines)
    assert title == "## es"
    order = [row.split("`")[1] for row in table.splitlines()[2:]]
    assert order == ["houlsby", "full", "lora"]
    assert f"| `lora` | 4.0 % | {RATES[0]:g} | 10.0 | 50.0 [" in table
    assert "so the language counts" in verdict
    assert "Best adapter on dev of the 2 above: `lora`, on test 50.0 %, +25 % relative" in verdict
    assert "missed" in verdict
    assert "Lowest of the adapters on test: `houlsby`, 20.0 %" in verdict
    assert "| `lora` | 10.0 | 10.0 | 10.0 | 10.0 |" in search
    # a second look at test is told
    assert "at another rate" not in grid_tables.section("es", PLAN, lines)[2]
    other = lines[-1] | {"arm": "lora", "rate": RATES[1]}
    assert "at another rate before: `lora`." in grid_tables.section("es", PLAN, [*lines, other])[2]
    # an arm that is not whole is shown on dev alone
    _, _, _, table, verdict, _, search = grid_tables.section("es", PLAN, lines[:-1])
    assert "houlsby" not in table + verdict
    assert "houlsby" in search
    assert "Not scored on test yet." in grid_tables.section("es", PLAN, lines[:4])


def test_the_readme_is_told_how_the_best_on_dev_compares() -> None:
    lines = scored(full=[2, 2], lora=[3, 2], houlsby=[1, 1])
    (found,) = grid_tables.claimed("es", PLAN, lines)
    assert found["claim"] == "language_es"
    assert found["value"] == pytest.approx(1.25)
    assert found["low"] == pytest.approx(1.0)  # both items of the one that has no more edits
    assert found["high"] == pytest.approx(1.5)
    assert found["method"].startswith("`lora`, three seeds; paired ")
    assert grid_tables.claimed("es", PLAN, lines[:4]) == []  # not scored yet
    assert grid_tables.claimed("de", PLAN, lines) == []  # nothing is claimed of it
    lost = scored(full=[5, 5], lora=[3, 2], houlsby=[1, 1])
    assert grid_tables.claimed("es", PLAN, lost) == []  # the language does not count


def test_the_figures_of_all_languages_stand_in_one_file(
    world: grid.Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = {"claim": "language_es", "value": 1.25}
    monkeypatch.setattr(world.study, "claimed", lambda name, lines: [figure] * bool(lines))
    world.go(None)
    grid_report.report(world)
    written = json.loads(world.results.with_suffix(".json").read_text())
    assert written["figures"] == [figure]
    assert written["command"].endswith(" --report")
    assert not written["quick"]
    assert written["details"]["measured"][world.study.name] == FACTS
    monkeypatch.setattr(world.study, "claimed", lambda name, lines: [])
    world.results.with_suffix(".json").unlink()
    grid_report.report(world)
    assert not world.results.with_suffix(".json").exists()


def test_a_page_shows_each_language_with_its_own_rates() -> None:
    facts = FACTS | {"steps": 2, "dev_items": 2, "score": "cer"}
    own = grid_languages.plan_of("zh")
    assert own.rates != PLAN.rates
    lines = [noted("full", rate, 1, 0.5) | facts for rate in own.rates]
    search = Language("es").section("zh", lines)[-1]
    assert "| 0.0005 | 0.001 | 0.003 | 0.008 | 0.02 |" in search
    assert "0.0005" not in Language("es").section("es", lines)[-1]
