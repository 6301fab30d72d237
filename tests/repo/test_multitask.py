"""The comparison of ways to serve many tasks: its suite, its claims, and all of it in the small."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import multitask
import multitask_claims
import multitask_fewshot
import multitask_plan
import multitask_report
import multitask_retrieval
import multitask_scores
import multitask_suite
import multitask_tables
import numpy as np
import pytest
import soundfile
import torch
from bench_claims import CLAIMS
from grid_plan import Run
from multitask_plan import Plan
from multitask_suite import Task

from speechadapt.adapters.retrieval_index import Entry, Index
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.data.suite import read_suite
from tests import synthetic
from tests.tiny_tasks import SHORT, base_folder

RETRIEVAL = {
    "kind": "retrieval",
    "layers": [1, 3],
    "accuracy": {"low": 1.0, "high_room": 0.5},
    "mean_accuracy": 0.75,
    "false_abstain": 0.04,
    "sounds_abstain": 0.9,
    "elsewhere": {"vctk (en)": {"items": 4, "right": 0.25, "nearest": {"low": 3}}},
    "left_out": {"tones": {"abstain": 0.8, "false_abstain": 0.1, "items": 2.0}},
}
PLAN = Plan(("a", "b"), (0.1, 0.2), (1, 2))
TINY = (
    "roles=[]",
    "prefix.cache=none",
    "alphabet=texts",
    "keep_head=false",
    *SHORT,
    "batch.batch_s=4",
)
FACTS = {"processor": "none", "threads": 1, "torch": "none", "command": "multitask.py"}
MIXED = ("shared", "shared_lora", "full", "gated", "mhr_task", "mhr_z")
TASKS = (
    Task("low", "tones", "low tones"),
    Task("low_noisy", "tones", "low tones in noise", damage="noise"),
    Task("high_room", "chords", "high chords in rooms", damage="room"),
)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Return a made pack whose corpora have a test split each."""
    root = synthetic.write_pack(tmp_path / "pack", ("tones", "chords"), ("noise",), ("rir",))
    for name in ("tones", "chords", "noise", "rir"):
        manifest = root / "manifests" / f"{name}.jsonl"
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        source = "dev" if name in ("tones", "chords") else "train"
        held = [
            row | {"split": "test", "id": f"{row['id']}-t"}
            for row in rows
            if row["split"] == source
        ]
        manifest.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, *held]))
    return root


def test_a_suite_codes_all_clips_alike_and_damages_by_id(pack: Path, tmp_path: Path) -> None:
    facts = [multitask_suite.make(pack, tmp_path / name, TASKS) for name in ("one", "two")]
    assert facts[0] == facts[1]  # the same clips get the same noise
    assert facts[0]["items"]["low"] == {"train": 8, "dev": 2, "test": 2}
    suite = read_suite(tmp_path / "one" / "suite.jsonl")
    assert list(suite) == [task.name for task in TASKS]
    signals = {}
    for task in TASKS[:2]:
        row = suite.split("test").of(task.name)[0]
        signals[task.name], rate = soundfile.read(row.audio_filepath)
        assert rate == multitask_suite.RATE
        twin = tmp_path / "two" / Path(row.audio_filepath).relative_to(tmp_path / "one")
        assert Path(row.audio_filepath).read_bytes() == twin.read_bytes()
    clean, noisy = signals.values()
    original = multitask_suite.read(pack, multitask_suite.rows_of(pack, TASKS[0], "test")[0])
    assert len(clean) == len(noisy) == len(original)
    coding, noise = (np.mean((one - original) ** 2) for one in (clean, noisy))
    assert 0 < coding < noise / 3


def test_a_task_is_a_part_of_a_corpus_and_not_too_long(pack: Path) -> None:
    numbers = Task("numbers", "tones", "", field="text")
    others = Task("others", "tones", "", field="text", digits=False)
    texts = {row.text for row in multitask_suite.rows_of(pack, numbers, "train")}
    assert texts <= set(multitask_suite.DIGITS)
    rest = {row.text for row in multitask_suite.rows_of(pack, others, "train")}
    assert rest
    assert not rest & set(multitask_suite.DIGITS)
    short = multitask_suite.rows_of(pack, Task("short", "tones", "", train_s=1.5), "train")
    assert 0 < sum(row.duration or 0 for row in short) <= 1.5


@pytest.fixture
def world(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> multitask.Comparison:
    """Return a comparison of a few arms, one rate and two seeds on a tiny model and made speech."""
    free = {
        name: multitask_plan.FREE[name]
        for name in ("oracle", "mean", "retrieval", "mera_wts", "svd")
    }
    monkeypatch.setattr(multitask_plan, "MAIN", MIXED)
    monkeypatch.setattr(multitask_plan, "EXTRA", ())
    for module in (multitask_report, multitask_tables):
        monkeypatch.setattr(module, "MIXED", MIXED)
        monkeypatch.setattr(module, "FREE", free)
    monkeypatch.setattr(multitask_scores, "FREE", free)
    monkeypatch.setattr(multitask_retrieval, "check", lambda *_: RETRIEVAL)
    multitask_suite.make(pack, tmp_path / "suite", TASKS)
    words = [f"base={base_folder(tmp_path)}", f"data.root={pack}", *TINY]
    folder, results = tmp_path / "runs", tmp_path / "multitask.jsonl"
    return multitask.Comparison(folder, tmp_path / "suite", results, (1, 2), words, (0.01,))


@pytest.mark.slow
def test_a_comparison_is_trained_in_sittings_and_scored_once(
    world: multitask.Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    world.go(0.0)
    assert not world.lines()
    world.go(None, ["head"])
    before = world.lines()
    world.go(None, ["gated"])
    assert world.lines() == before
    assert "what they start from is missing: gated" in capsys.readouterr().out
    world.go(None)
    lines = world.lines()
    assert lines[: len(before)] == before
    kinds = 2 * len(TASKS) + len(MIXED)
    assert len(lines) == 1 + 2 * kinds + len(multitask_plan.MORE_RATES["full"])
    runs = {(one["arm"], one["seed"]): one for one in lines}
    single, gated = runs["single:low", 1], runs["gated", 1]
    assert single["trained"] == single["held"] > 0
    assert gated["held"] == gated["trained"] + len(TASKS) * single["held"]
    assert runs["full", 1]["trained"] == runs["full", 1]["encoder"]

    multitask_report.report(world, FACTS)
    kinds = [one["kind"] for one in world.lines()]
    assert (kinds.count("test"), kinds.count("free")) == (1 + len(MIXED) * 2, 5 * 2)
    assert (kinds.count("items"), kinds.count("matrix"), kinds.count("routing")) == (1, 1, 1)
    page = world.results.with_suffix(".md")
    text = page.read_text()
    for part in (
        "`oracle`",
        "`mean`",
        "`head`",
        "(oracle)",
        "75.0 %",
        "Best on dev of the",
        "bar: at most",
    ):
        assert part in text
    costs = {one["arm"]: one for one in world.lines() if one["kind"] == "cost"}
    assert costs.keys() == {*MIXED, *multitask_report.FREE} - {"full"}
    assert all(0 < one["low"] <= one["time"] <= one["high"] for one in costs.values())
    (cosine,) = (one for one in world.lines() if one["kind"] == "cosine")
    assert -1 <= cosine["cosine"] <= 1
    assert f"`shared_lora` {cosine['cosine']:.2f}" in text
    for name in ("multitask-matrix.png", "multitask-gated.png"):
        assert f"({name})" in text
        assert (page.parent / name).is_file()
    found = json.loads(page.with_suffix(".json").read_text())
    assert {one["claim"] for one in found["figures"]} == {
        name for name, claim in CLAIMS.items() if claim.file == "multitask.json"
    }
    assert found["command"] == "multitask.py --report"
    multitask_report.report(world, FACTS)
    assert [one["kind"] for one in world.lines()] == kinds  # test was looked at once
    assert page.read_text() == text


def score_line(arm: str, errors: Sequence[int], kind: str) -> dict[str, Any]:
    """Return the line of an arm's score: every task has two items of ten letters."""
    edits = {task: [one, one] for task, one in zip(PLAN.tasks, errors, strict=True)}
    line = {"kind": kind, "arm": arm, "seed": 1, "dev": sum(errors) / 20, "dev_wer": 0.5}
    return line | {"edits": {"cer": edits, "wer": edits}}


def claims_of(
    scored: Sequence[tuple[str, Sequence[int]]], free: Sequence[tuple[str, Sequence[int]]]
) -> dict[str, dict[str, Any]]:
    """Return the figures of arms by how many letters of ten were wrong, task by task."""
    sizes = {"trained": 5, "held": 5, "encoder": 100, "run_s": 1.0}
    names = (*PLAN.singles(), *PLAN.singles("single_lora"), *(arm for arm, _ in scored))
    errors = dict(scored)
    lines: list[dict[str, Any]] = [
        {"kind": "run", "arm": arm, "rate": rate, "seed": 1, **sizes}
        | {"dev": sum(errors.get(arm, (5, 5))) / 20 + rate}
        for arm in names
        for rate in PLAN.rates_of(arm)
    ]
    units = {task: [10, 10] for task in PLAN.tasks}
    speakers = {task: ["s", "t"] for task in PLAN.tasks}
    lines.append({"kind": "items", "units": {"cer": units, "wer": units}, "speakers": speakers})
    lines += [score_line(*one, "test") for one in scored]
    lines += [score_line(*one, "free") for one in free]
    return {one["claim"]: one for one in multitask_claims.claimed(PLAN, [*lines, RETRIEVAL])}


def test_claims_are_of_the_way_that_is_best_on_dev_and_is_not_told_the_task() -> None:
    scored = [("head", (8, 8)), ("full", (4, 4)), ("shared", (3, 5)), ("mhr_task", (1, 1))]
    found = claims_of(scored, [("oracle", (2, 2)), ("mean", (9, 8)), ("retrieval", (2, 3))])
    assert found["multitask_oracle"]["value"] == pytest.approx(1.25)
    assert "`retrieval`, seeds: 1" in found["multitask_oracle"]["method"]
    assert found["multitask_oracle"]["high"] == found["multitask_oracle_high"]["value"]
    assert found["multitask_full"]["value"] == pytest.approx(0.625)
    assert found["multitask_held"]["value"] == 10  # two adapters of 5 in 100
    assert found["multitask_head"]["value"] == 1
    assert found["multitask_head"]["method"].startswith("`mean` of 5")
    assert found["retrieval_accuracy"]["value"] == 75
    assert (found["retrieval_accuracy"]["low"], found["retrieval_accuracy"]["high"]) == (50, 100)
    assert found["retrieval_sounds"]["value"] == 90
    lora = claims_of(scored, [("oracle", (2, 2)), ("oracle_lora", (1, 1)), ("svd", (1, 2))])
    assert lora["multitask_oracle"]["value"] == pytest.approx(1.5)
    assert "against `oracle_lora`" in lora["multitask_oracle"]["method"]
    without = claims_of(scored[1:], [("oracle", (2, 2))])
    assert not any(name.startswith("multitask_") for name in without)


def test_a_rate_that_makes_a_run_diverge_is_passed_over(
    world: multitask.Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise CheckpointError("the loss is nan. Start anew with a smaller trainer.learning_rate")

    monkeypatch.setattr(multitask, "train", lost)
    world.go(None, ["head"])
    (line,) = world.lines()
    assert line["dev"] == multitask.DIVERGED
    other = Run("head", 0.001, 1)
    plan = Plan(world.plan.tasks, (0.001, 0.01), (1,))
    runs = {**multitask_plan.runs_of([line]), other: {"dev": 0.9}}
    assert plan.of_seed("head", 1, runs) == other


def test_a_mean_that_is_a_single_adapter_scores_as_that_adapter(
    world: multitask.Comparison,
) -> None:
    world.go(None, ["head", "single"])
    stage = multitask_scores.Stage(world, "single", 1)
    dev = multitask_scores.sets_of(world.ground.dev)
    alone = stage.matrix(dev, "")
    tasks = world.plan.tasks
    assert list(alone) == ["(base)", *tasks]
    oracle = stage.score("oracle", dev, "")
    for task in tasks:
        assert oracle[task].cer == alone[task][task]["cer"]
        run = world.plan.of_seed(f"single:{task}", 1, multitask_plan.runs_of(world.lines()))
        line = multitask_plan.runs_of(world.lines())[run]
        assert line["dev"] == pytest.approx(oracle[task].cer, abs=1e-4)


@pytest.mark.slow
def test_few_recordings_are_learnt_from_once_for_each_way_and_seed(
    world: multitask.Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {name: multitask_fewshot.WAYS[name] for name in ("single", "shared", "mera")}
    monkeypatch.setattr(multitask_fewshot, "WAYS", ways)
    monkeypatch.setattr(multitask_fewshot, "SHOTS", (1, 3))
    monkeypatch.setattr(multitask_fewshot, "STEPS", 2)
    few = multitask_fewshot.FewShot(world, tmp_path / "few.jsonl", (1,))
    with pytest.raises(ConfigError, match="the arm 'single:low' is not finished"):
        few.go(["low"])
    world.go(None, ["head", "single", "shared"])
    few.go(["low"])
    lines = few.lines()
    done = {(one["way"], one["shots"]) for one in lines}
    assert done == {(way, shots) for way in ways for shots in (0, 1, 3)} - {("single", 0)}
    assert len(lines) == len(done)
    few.go(["low"])
    assert few.lines() == lines
    assert few.config("shared", "low", 3, 1).tasks == ("low",)
    assert few.config("shared", "low", 3, 1).start.endswith("shared-without-low/last")
    page = multitask_fewshot.table(lines)
    assert "## low (CER on test)" in page
    assert "| way | trained | 0 recordings | 1 recordings | 3 recordings |" in page


def test_strangers_are_left_to_the_base_and_the_rest_finds_its_adapter() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    entries = tuple(Entry(name, name, "", "", 1.0) for name in ("low", "high"))
    index = Index(entries, (1,), "", centres, torch.arange(2), torch.zeros(2), torch.eye(2), 2.0)
    near = {"low": torch.tensor([[0.5, 0.0], [9.5, 0.5]]), "high": torch.tensor([[10.0, 1.0]])}
    found = multitask_retrieval.nearest(index, near)
    assert found == {"low": {"low": 1, "high": 1}, "high": {"high": 1}}
    assert index.left_to_base(torch.cat(list(near.values()))) == 0.0
    assert index.left_to_base(torch.tensor([[5.0, 9.0], [0.0, 1.0]])) == 0.5
    text = "\n".join(multitask_retrieval.section(RETRIEVAL))
    assert "| tones | 2 | 80 | 10 |" in text
    assert "| vctk (en) | 4 | 25 | low 3 |" in text
