"""`tools/grid.py sounds`: folds are held out in turn, arms are alike, questions are answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grid
import grid_report
import grid_sounds
import grid_sounds_tables
import pytest
import torch
from grid_plan import Plan, Run, of_kind
from grid_sounds import FAMILIES, KNITTING, PLAN, SETTINGS, Sounds
from grid_sounds_tables import CONTRASTS

from speechadapt.adapters.attach import choose_sites
from speechadapt.adapters.catalog import method
from speechadapt.core.bind import bind
from speechadapt.encoders.base import Encoder
from speechadapt.training.adapt.parts import load_base
from speechadapt.training.tasks.classify import ClassifyObjective
from tests import synthetic
from tests.tiny_tasks import SHORT, base_folder

FACTS = {"processor": "p", "threads": 1, "date": "d", "command": "c"}
ARMS = ("full", "head", "bottleneck", "bottleneck-sequential", "bottleneck-8shot")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_base("mini-ast", "full")[0]


def size(encoder: Encoder, name: str) -> int:
    """Return the parameters of an arm's adapters."""
    setting = SETTINGS[name]
    config, problems = bind(method(setting.method).config, setting.adapter, "adapter")
    assert not problems
    sites = choose_sites(encoder, list(setting.roles))
    return sum(method(setting.method).parameters(site, config) for site in sites)


def test_adapters_of_every_family_place_and_join_are_of_one_size(encoder: Encoder) -> None:
    one = size(encoder, "bottleneck")
    whole = sum(part.numel() for part in encoder.model.parameters())
    assert 0.015 < one / whole < 0.025
    swept = {f"{name}-w{width}" for name, family in FAMILIES.items() for width in family.widths}
    for name, setting in SETTINGS.items():
        if name == KNITTING:  # its widths are even and go by four heads, so it is a little smaller
            assert 0.88 * one < size(encoder, name) <= one
        elif setting.method and name not in swept:
            assert size(encoder, name) == pytest.approx(one, rel=0.03), name
    widths = (FAMILIES[name].widths for name in ("conformer", "bottleneck"))
    for first, second in zip(*widths, strict=True):
        wanted = size(encoder, f"bottleneck-w{second}")
        assert size(encoder, f"conformer-w{first}") == pytest.approx(wanted, rel=0.03)


def test_every_arm_asks_for_a_rate_that_is_searched() -> None:
    assert set(PLAN.arms) == set(SETTINGS)
    assert len(PLAN.arms) == len(SETTINGS)
    assert set(PLAN.leaders.values()) == {"full", "head", KNITTING, *FAMILIES}
    assert PLAN.each


def test_the_arms_of_a_question_are_there_and_differ() -> None:
    for contrast in CONTRASTS:
        for first, second in contrast.pairs:
            assert SETTINGS[first] != SETTINGS[second]


def line(kind: str, arm: str, fold: int, wrong: list[int], rate: float = 2e-3) -> dict[str, Any]:
    """Return a line of a run or of its test score."""
    where = {"kind": kind, "arm": arm, "rate": rate, "seed": fold}
    if kind == "test":
        items = [f"{fold}-{number}" for number in range(len(wrong))]
        return where | {"edits": wrong, "units": [1] * len(wrong), "items": items}
    facts = {"dev": 0.25, "steps": 2, "trained": 2, "encoder": 100, "step_s": 0.5}
    return where | facts | {"shots": 8 if "shot" in arm else 0} | FACTS


def test_a_question_is_answered_from_the_pairs_that_are_scored() -> None:
    plan = Plan(("full", "bottleneck", "conformer"), (2e-3,), (1, 2), each=True)
    wrong = {"full": [1, 1, 1, 0] * 5, "bottleneck": [1, 0, 0, 0] * 5, "conformer": [0] * 20}
    lines = [
        line(kind, arm, fold, wrong[arm])
        for kind in ("run", "test")
        for arm in plan.arms
        for fold in (1, 2)
    ]
    title, _, table, _, questions, _, search = grid_sounds_tables.section("esc10", plan, lines)
    assert title == "## esc10"
    order = [row.split("`")[1] for row in table.splitlines()[2:]]
    assert order == ["conformer", "bottleneck", "full"]
    row = next(row for row in table.splitlines() if row.startswith("| `bottleneck`"))
    assert "| 2.00 % | 0.002, 0.002 | 75.0 | 75.0 [" in row
    assert "| 75, 75 | 50.0 [" in row
    first, *_ = questions.splitlines()[2:]
    assert "convolution against bottleneck, same size | convolution better | 1 of 8" in first
    assert "100.0, 75.0 | 25.0 [" in first
    assert first.endswith("first better |")
    assert "8 clips" not in questions
    assert "| `bottleneck` | 25, 25 |" in search
    # a fold that is not scored leaves its arm out
    parts = grid_sounds_tables.section("esc10", plan, lines[:-1])
    assert "Not scored yet: `conformer`." in parts
    assert "convolution" not in parts[4]


def test_the_verdict_needs_the_whole_interval_on_one_side() -> None:
    def found(arm: str, wrong: list[int]) -> grid_sounds_tables.Arm:
        misses = dict(enumerate(wrong))
        return grid_sounds_tables.Arm(arm, {}, (), 0.0, misses, (), 0.0)  # type: ignore[arg-type]

    better, worse, same = found("a", [0] * 8), found("b", [1] * 8), found("c", [0] * 7 + [1])
    told = grid_sounds_tables.verdict
    assert told(grid_sounds_tables.difference([(better, worse)])) == "first better"
    assert told(grid_sounds_tables.difference([(worse, better)])) == "second better"
    assert told(grid_sounds_tables.difference([(better, same)])) == "not told apart"


@pytest.fixture
def world(tmp_path: Path) -> grid.Grid:
    """Return a comparison of two folds on a tiny model and made sounds."""
    root = synthetic.write_pack(tmp_path / "pack")
    synthetic.write_labelled(root, "esc10", classes=2, clips=12, folds=2)
    words = [f"data.root={root}", f"base={base_folder(tmp_path, 'ast')}", *SHORT]
    leaders = {name: SETTINGS[name].family for name in ARMS}
    study = Sounds(Plan(ARMS, PLAN.rates[:2], (1, 2), each=True, leaders=leaders))
    return grid.Grid(study, tmp_path / "runs", tmp_path / "lines.jsonl", words, FACTS)


def test_folds_are_trained_in_turn_and_scored_once(
    world: grid.Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.go(None)
    lines = world.lines()
    assert len(lines) == 3 * 2 * 2 + 2 * 2
    assert not world.missing()
    runs = of_kind(lines, "run")
    for fold in (1, 2):
        rates = {run.arm: run.rate for run in runs if run.seed == fold and "-" in run.arm}
        best = world.study.plan.best_rates("bottleneck", runs)[fold]
        assert rates == dict.fromkeys(ARMS[3:], best)
    # both trained at a rate see the same clips, few-shot runs others
    assert {key[:2] for key in world._batches} == {(1, 0), (2, 0), (1, 8), (2, 8)}

    calls: list[str] = []
    misses = ClassifyObjective.misses

    def counted(objective: ClassifyObjective, part: str) -> list[bool]:
        calls.append(part)
        return misses(objective, part)

    monkeypatch.setattr(ClassifyObjective, "misses", counted)
    grid_report.report(world)
    grid_report.report(world)
    assert calls == ["test"] * len(ARMS) * 2  # the second report looked at nothing
    tests = of_kind(world.lines(), "test")
    first, second = (
        {item for run, one in tests.items() if run.seed == fold for item in one["items"]}
        for fold in (1, 2)
    )
    assert not first & second
    assert len(first | second) == 48
    page = world.results.with_suffix(".md").read_text()
    assert "| `bottleneck-8shot` |" in page


def test_a_run_that_is_scored_says_what_it_said_at_its_end(world: grid.Grid) -> None:
    run = Run("bottleneck", PLAN.rates[1], 1)
    world.train(run)
    config = world.config(run)
    assert config.clips.fold == 1
    objective = grid_sounds.classify.build(config)
    objective.restore(world.folder / run.name / "last")
    objective.eval()
    assert objective.evaluate()["error"] == world.lines()[-1]["dev"]
