"""Several tasks on a tiny frozen encoder, on made tones."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from speechadapt.adapters.composed import weights_noted
from speechadapt.adapters.handle import attachment
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.source import fingerprint_module
from speechadapt.models.build import load
from speechadapt.training.adapt.transcribed import read_ground
from speechadapt.training.loop import train
from speechadapt.training.state import latest_checkpoint
from speechadapt.training.tasks.multitask import MultitaskObjective

Build = Callable[..., Any]

UPPER = "roles=[layer.1.ffn]"
PARALLEL = (UPPER, "method=parallel", "adapter.bottleneck=3")
TASKS = ("tones", "chords")
EVEN = "temperature=1000"
DEV = "data.dev=[tones,chords]"
UNJOINED = "batch.join_prob=0"
MIX = (*PARALLEL, DEV, UNJOINED, EVEN)


def run(objective: Any, folder: Path, **trainer: Any) -> Any:
    """Train an objective into a folder."""
    settings = {"steps": 3, "learning_rate": 0.02, "warmup_steps": 0, **trainer}
    return train(objective, replace(objective.config.trainer, **settings), folder)


@pytest.fixture(scope="module")
def parts(build: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the folders of a head and of an adapter for each task, trained with it."""
    base = tmp_path_factory.mktemp("parts")
    run(build("multitask", "arm=head", *MIX), base / "head")
    head = f"head={base / 'head/last'}"
    for task in TASKS:
        run(build("multitask", *MIX, head, f"tasks=[{task}]"), base / task)
    return {name: str(base / name / "last") for name in ("head", *TASKS)}


def fused(parts: dict[str, str], *words: str, learns: str = "two_stage") -> list[str]:
    """Return the words of a run that fuses."""
    folders = {task: parts[task] if learns == "two_stage" else "''" for task in TASKS}
    named = ",".join(f"{task}:{folder}" for task, folder in folders.items())
    start = [*MIX, f"parts={{{named}}}", f"learns={learns}", f"head={parts['head']}"]
    return [*start, "fusion.key_width=4", "fusion.value_rank=2", *words]


def test_one_head_serves_all_and_is_not_trained(build: Build, parts: dict[str, str]) -> None:
    heads = []
    for name in parts.values():
        tensors = load_file(Path(name) / "adapter_model.safetensors")
        heads.append({key: part for key, part in tensors.items() if key.startswith("head:")})
    for other in heads[1:]:
        assert other.keys() == heads[0].keys()
        assert all(torch.equal(part, heads[0][key]) for key, part in other.items())
    objective = build("multitask", *MIX, f"head={parts['head']}")
    assert objective.trained_parameters()["head"] == 0
    assert not objective.head.weight.requires_grad
    fresh = build("multitask", *MIX)
    assert fresh.trained_parameters()["head"] == fresh.head.weight.numel() + len(fresh.alphabet)


def test_a_single_task_is_drawn_and_scored_alone(build: Build, parts: dict[str, str]) -> None:
    objective = build("multitask", *MIX, f"head={parts['head']}", "tasks=[chords]")
    drawn = {row.parts[0] for step in range(20) for row in objective.speech.plan.rows(step)}
    assert {objective.speech.utterances[one].extra["corpus"] for one in drawn} == {"chords"}
    assert set(objective.dev.sets) == {"chords"}
    assert objective.ids
    assert not any(one.startswith("tones-") for one in objective.ids)
    # its symbols are still those of all tasks
    assert objective.alphabet == build("multitask", *MIX, f"head={parts['head']}").alphabet


def test_tasks_are_mixed_by_temperature_as_a_function_of_seed_and_step(build: Build) -> None:
    shares = {}
    for temperature in (1, 1000):
        words = ("batch.spread=9", "batch.max_rows=1", f"temperature={temperature}")
        objective = build("multitask", *MIX, *words)
        rows = objective.speech.utterances
        # of chords all but one are taken away
        few = [row for row in rows if row.extra["corpus"] == "tones"]
        few += [row for row in rows if row.extra["corpus"] == "chords"][:1]
        objective.speech.utterances = few
        drawn = objective._drawn(objective.speech)
        names = [
            few[row.parts[0]].extra["corpus"]
            for step in range(150)
            for row in drawn.plan.rows(step)
        ]
        shares[temperature] = Counter(names)["chords"] / len(names)
        assert drawn.plan.rows(3) == objective._drawn(objective.speech).plan.rows(3)
    assert shares[1] < 0.25 < 0.4 < shares[1000]


def test_few_recordings_are_chosen_by_the_seed(build: Build) -> None:
    def drawn(*words: str) -> set[str]:
        objective = build("multitask", *MIX, "shots=2", "batch.spread=9", *words)
        rows = [row for step in range(40) for row in objective.speech.plan.rows(step)]
        found = {objective.speech.utterances[row.parts[0]].id for row in rows}
        assert found == set(objective.ids) - {"hiss-train-000", "hiss-train-001", "room-train-000"}
        return found

    first = drawn()
    assert len(first) == 2 * len(TASKS)
    assert drawn() == first
    assert drawn("trainer.seed=3") != first
    assert {one.split("-")[0] for one in drawn("tasks=[chords]")} == {"chords"}


def test_every_row_says_its_task(build: Build) -> None:
    objective = build("multitask", *MIX, "batch.spread=9")
    names = list(objective.suite)
    for step in range(3):
        batch = objective.batch(step, 0)
        rows = objective.speech.plan.rows(step)
        wanted = [objective.speech.utterances[row.parts[0]].extra["corpus"] for row in rows]
        assert [names[number] for number in batch["tasks"].tolist()] == wanted


def test_a_gate_is_taught_the_task_of_every_row(build: Build, parts: dict[str, str]) -> None:
    gate = ("~fusion", "fusion={method:gated,per:utterance}", "batch.spread=9")
    plain, taught = (build("multitask", *fused(parts, *gate, f"route_weight={w}")) for w in (0, 2))
    batch = taught.batch(0, 0)
    losses = [objective.eval()(dict(batch)) for objective in (plain, taught)]
    # a gate that has learned nothing gives each of the two parts a half
    assert losses[1][1]["routing"] == pytest.approx(math.log(2), abs=1e-4)
    assert "routing" not in losses[0][1]
    assert float((losses[1][0] - losses[0][0]).detach()) == pytest.approx(2 * math.log(2), abs=1e-3)
    learning = [one for one in taught.parameters() if one.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        taught(dict(batch))[0].backward()
        optimizer.step()
    assert taught(dict(batch))[1]["routing"] < 0.1
    with weights_noted(attachment(taught.encoder, "fusion")) as meter, torch.no_grad():
        taught._frames(dict(batch))
    assert torch.equal(meter.rows().argmax(-1), batch["tasks"])


def test_a_task_without_a_part_cannot_be_taught(build: Build, parts: dict[str, str]) -> None:
    words = [word.replace("chords:", "others:") for word in fused(parts)]
    with pytest.raises(ConfigError, match="'chords' has no part of its name among tones, others"):
        build("multitask", *words, "route_weight=1")


def test_a_fusion_leaves_its_parts_as_they_are(
    build: Build, parts: dict[str, str], tmp_path: Path
) -> None:
    before = {
        task: (Path(parts[task]) / "adapter_model.safetensors").read_bytes() for task in TASKS
    }
    objective = build("multitask", *fused(parts))
    base = fingerprint_module(objective.encoder.model)
    marks = {task: fingerprint_module(attachment(objective.encoder, task).module) for task in TASKS}
    start = {name: part.clone() for name, part in objective.state_dict().items()}
    run(objective, tmp_path)
    assert fingerprint_module(objective.encoder.model) == base
    for task in TASKS:
        module = attachment(objective.encoder, task).module
        assert fingerprint_module(module) == marks[task]
        assert (Path(parts[task]) / "adapter_model.safetensors").read_bytes() == before[task]
    moved = {name for name, part in objective.state_dict().items() if (part != start[name]).any()}
    assert moved
    assert all(name.startswith("adapter.") for name in moved)
    assert set(objective.parts()) == {"head", "adapter"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["parameters"]["trained"] == objective.handle.num_parameters()


def test_a_saved_fusion_reads_what_the_objective_reads(
    build: Build, parts: dict[str, str], tmp_path: Path
) -> None:
    objective = build("multitask", *fused(parts))
    run(objective, tmp_path / "fused", average=0.0)
    objective.eval()
    signals = [signal for items in objective.dev.sets.values() for signal, _ in items]
    with torch.no_grad():
        wanted = objective.read("tones-0", signals)
    found = load(objective.config.base, adapter=tmp_path / "fused/last").decode_batch(signals)
    assert [one.text for one in found] == wanted
    alone = load(objective.config.base, adapter=Path(parts["tones"]))
    assert len(alone.decode_batch(signals)) == len(signals)


def test_joint_learning_trains_parts_and_fusion_and_bundles_them(
    build: Build, parts: dict[str, str], tmp_path: Path
) -> None:
    objective = build("multitask", *fused(parts, learns="joint"))
    start = {name: part.clone() for name, part in objective.state_dict().items()}
    run(objective, tmp_path / "joint")
    moved = {name for name, part in objective.state_dict().items() if (part != start[name]).any()}
    assert {name.split(".")[0] for name in moved} == {"adapter", "part/tones", "part/chords"}
    assert not any(name.startswith("head.") for name in moved)
    best = tmp_path / "joint/best"
    assert (best / "parts/tones/adapter_model.safetensors").is_file()
    moved_away = tmp_path / "elsewhere"
    best.rename(moved_away)
    recogniser = load(objective.config.base, adapter=moved_away)
    assert recogniser.decoder.alphabet == objective.alphabet


def test_a_stopped_joint_run_goes_on_bit_for_bit(
    build: Build, parts: dict[str, str], tmp_path: Path
) -> None:
    words = fused(parts, "compare=false", learns="joint")
    run(build("multitask", *words), tmp_path / "straight", average=0.9)
    for _ in range(3):
        ended = run(build("multitask", *words), tmp_path / "stopped", average=0.9, sitting_s=1e-6)
    assert ended.finished
    for name in ("model", "optimizer", "average"):
        one, other = (
            (
                latest_checkpoint(tmp_path / kind / "checkpoints") / f"{name}.safetensors"
            ).read_bytes()
            for kind in ("straight", "stopped")
        )
        assert one == other, name


def test_the_matrix_of_adapters_and_tasks_is_reported(
    build: Build, parts: dict[str, str], tmp_path: Path
) -> None:
    objective = build("multitask", *fused(parts, "score=cer"))
    run(objective, tmp_path)
    matrix = json.loads((tmp_path / "report.json").read_text())["matrix"]
    assert list(matrix) == ["(base)", *TASKS, "fusion"]
    assert all(set(row) == set(TASKS) for row in matrix.values())
    own = json.loads((Path(parts["tones"]) / "scores.json").read_text())
    assert matrix["tones"]["tones"]["cer"] == pytest.approx(own["tones"]["cer"])
    last = json.loads((tmp_path / "last/scores.json").read_text())
    assert matrix["fusion"]["chords"]["cer"] == pytest.approx(last["chords"]["cer"])
    text = objective.report(tmp_path)
    assert "CER % on dev, adapters by tasks" in text
    assert "(oracle)" in text
    assert "to the oracle" in text


def test_an_adapter_that_is_told_the_task_hears_it_for_every_row(
    build: Build, parts: dict[str, str], tmp_path: Path
) -> None:
    tasks = f"adapter.tasks=[{','.join(TASKS)}]"
    words = ("method=mhr", "roles=[layer.1.attn.q]", "adapter.routing=task", tasks)
    objective = build(
        "multitask", *words, "adapter.heads=1", DEV, UNJOINED, EVEN, f"head={parts['head']}"
    )
    run(objective, tmp_path, average=0.0)
    objective.eval()
    adapter = objective.handle.module.adapters()[0]
    with torch.no_grad():
        adapter.up.normal_(generator=torch.Generator().manual_seed(0))
        adapter.down.normal_(generator=torch.Generator().manual_seed(1))
    signals = [signal for signal, _ in objective.dev.sets["tones"]]
    batch = objective.batch(0, 0)
    alone = batch | {"tasks": torch.zeros_like(batch["tasks"])}
    others = batch | {"tasks": torch.ones_like(batch["tasks"])}
    with torch.no_grad():
        before = objective(alone)[0], objective(others)[0]
        adapter.logits[1] += torch.linspace(-8, 8, len(adapter.logits[1]))
        after = objective(alone)[0], objective(others)[0]
        assert len(objective.read("chords-0", signals)) == len(signals)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_run_starts_from_the_tensors_that_fit(
    build: Build, parts: dict[str, str], tmp_path: Path
) -> None:
    common = ("method=mhr", "roles=[layer.1.attn.q]", "adapter.heads=1", "adapter.skills=3")
    rest = (DEV, UNJOINED, f"head={parts['head']}")
    tasks = f"adapter.tasks=[{','.join(TASKS)}]"
    run(build("multitask", *common, "adapter.routing=task", tasks, *rest), tmp_path / "skills")
    start = f"start={tmp_path / 'skills/last'}"
    objective = build("multitask", *common, "adapter.learns=router", start, *rest)
    skills = load_file(tmp_path / "skills/last/adapter_model.safetensors")
    own = objective.handle.module.tensors()
    for name in ("down", "up"):
        assert torch.equal(own[f"layer.1.attn.q:{name}"], skills[f"layer.1.attn.q:{name}"])
    kept = own["layer.1.attn.q:up"].clone()
    run(objective, tmp_path / "routing")
    assert torch.equal(objective.handle.module.tensors()["layer.1.attn.q:up"], kept)
    with pytest.raises(CheckpointError, match=r"none of its .* tensors has name and shape"):
        build("multitask", *MIX, *rest, start)


def test_runs_share_what_the_frozen_layers_made(build: Build, parts: dict[str, str]) -> None:
    words = [*MIX, f"head={parts['head']}", "prefix.cache=memory", "repeat.variants=1"]
    first = build("multitask", *words)
    ground = read_ground(first.config, first.encoder.sample_rate)
    losses = []
    for number in range(2):
        torch.manual_seed(0)
        objective = MultitaskObjective(first.config, ground)
        objective.train()
        torch.manual_seed(0)
        losses.append(float(objective(objective.batch(0, 0))[0].detach()))
        assert (objective.reuse.seconds == 0.0) == (number == 1)
    assert losses[0] == losses[1]


def test_settings_that_do_not_fit_are_named(build: Build, parts: dict[str, str]) -> None:
    def problem(*words: str) -> str:
        with pytest.raises((ConfigError, CheckpointError)) as caught:
            build("multitask", *words)
        return str(caught.value)

    assert "Did you mean tones" in problem(*MIX, "tasks=[tone]")
    assert "names 1 adapter; a fusion takes 2 or more" in problem(
        *MIX, f"parts={{tones:{parts['tones']}}}"
    )
    assert "names no folder, but learns=two_stage" in problem(
        *MIX, f"parts={{tones:{parts['tones']},chords:''}}"
    )
    assert "leaves nothing to train" in problem(*fused(parts, "fusion.method=mean"))
    assert "Did you mean key_width" in problem(*fused(parts, "fusion.key_with=3"))
    assert "tasks are mixed by size" in problem(*MIX, "batch.weights={tones:1}")
    assert "arm=full fuses none" in problem(*fused(parts, "arm=full"))
    assert "has no adapter to begin" in problem(*MIX, "arm=head", f"start={parts['tones']}")
    lacking = problem(*MIX, f"parts={{tones:{parts['tones']},chords:/no/where}}")
    assert "/no/where" in lacking
