"""Adaptation of a tiny frozen encoder on made tones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.source import fingerprint_module
from speechadapt.models.build import load
from speechadapt.training.loop import train
from speechadapt.training.state import latest_checkpoint
from tests.tiny_tasks import base_folder

Build = Callable[..., Any]

UPPER = "roles=[layer.1.attn.v,layer.1.ffn.up]"
RANK = "adapter.rank=2"
BATCHES = (UPPER, RANK, "repeat.batches=2")
VARIANTS = (UPPER, RANK, "repeat.variants=2", "batch.join_prob=0")
MEMORY = "prefix.cache=memory"
LONGER = ("trainer.steps=4", "trainer.average=0.9", "trainer.learning_rate=0.01")


def run(objective: Any, folder: Path, **trainer: Any) -> Any:
    """Train an objective into a folder."""
    return train(objective, replace(objective.config.trainer, **trainer), folder)


def checkpoint(folder: Path) -> Path:
    """Return a run's last checkpoint."""
    found = latest_checkpoint(folder / "checkpoints")
    assert found is not None
    return found


def losses(folder: Path) -> list[float]:
    """Return the losses of a run's log."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_only_adapter_and_head_are_trained_and_kept(build: Build, tmp_path: Path) -> None:
    objective = build("adapt", RANK, "train_norms=adapted", *LONGER)
    before = fingerprint_module(objective.encoder.model)
    start = {name: part.clone() for name, part in objective.state_dict().items()}
    run(objective, tmp_path)
    assert fingerprint_module(objective.encoder.model) == before
    stored = load_file(checkpoint(tmp_path) / "model.safetensors")
    assert {name.split(".")[0] for name in stored} == {"adapter", "head"}
    assert stored.keys() == objective.state_dict().keys()
    moved = {name for name, part in objective.state_dict().items() if (part != start[name]).any()}
    assert moved == set(stored)
    sizes = [path.stat().st_size for path in checkpoint(tmp_path).glob("model.safetensors")]
    base = sum(part.numel() for part in objective.encoder.model.parameters())
    assert sum(sizes) < base  # fewer bytes than the base has numbers


def test_groups_have_their_rates_and_norms_are_not_decayed(build: Build, tmp_path: Path) -> None:
    seen: dict[str, tuple[float, float]] = {}

    class Spied(Exception):  # noqa: N818 - ends the run
        pass

    words = ("adapter_rate=0.004", "head_rate=0.002", "head_decay=0.5", "adapter_decay=0.25")
    objective = build("adapt", RANK, "train_norms=adapted", "trainer.learning_rate=0.001", *words)
    names = {id(part): name for name, part in objective.named_parameters()}

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for part in group["params"]:
                seen[names[id(part)]] = (group["lr"], group["weight_decay"])
        raise Spied

    handle = register_optimizer_step_pre_hook(look)
    try:
        with pytest.raises(Spied):
            run(objective, tmp_path, warmup_steps=0)
    finally:
        handle.remove()
    assert seen["head.weight"] == (0.002, 0.5)
    assert seen["head.bias"] == (0.002, 0.0)
    norms = {value for name, value in seen.items() if name.startswith("adapter.norms.")}
    assert norms == {(0.004, 0.0)}
    matrices = {value for name, value in seen.items() if name.startswith("adapter.sites.")}
    assert matrices == {(0.004, 0.25)}
    assert not any(name.startswith("encoder.") for name in seen)


@pytest.mark.parametrize("words", [BATCHES, (*VARIANTS, MEMORY)], ids=["batches", "variants"])
def test_a_stopped_run_goes_on_bit_for_bit(
    build: Build, tmp_path: Path, words: tuple[str, ...]
) -> None:
    kinds = ("straight", "stopped")
    run(build("adapt", *words, *LONGER), tmp_path / "straight")
    for _ in range(4):
        stopped = run(build("adapt", *words, *LONGER), tmp_path / "stopped", sitting_s=1e-6)
    assert stopped.finished
    for name in ("model", "optimizer", "average"):
        one, other = (
            (checkpoint(tmp_path / kind) / f"{name}.safetensors").read_bytes() for kind in kinds
        )
        assert one == other, name
    assert losses(tmp_path / "straight") == losses(tmp_path / "stopped")
    saved = [load_file(tmp_path / kind / "last/adapter_model.safetensors") for kind in kinds]
    assert all(torch.equal(part, saved[1][name]) for name, part in saved[0].items())


@pytest.mark.parametrize("family", ["w2v_bert", "whisper"])
def test_a_run_with_kept_batches_is_equal_bit_for_bit(
    build: Build, base: Path, tmp_path: Path, family: str
) -> None:
    words = (*BATCHES, *LONGER, f"base={base_folder(base, family)}", "batch.max_s=1.2")
    plain = build("adapt", *words, "padding=native", "augment.tempo=[0.9,1.1]")
    kept = build("adapt", *words, "padding=native", "augment.tempo=[0.9,1.1]", MEMORY)
    run(plain, tmp_path / "plain")
    run(kept, tmp_path / "kept")
    for name in ("model", "optimizer", "average"):
        one, other = (
            (checkpoint(tmp_path / kind) / f"{name}.safetensors").read_bytes()
            for kind in ("plain", "kept")
        )
        assert one == other, name
    assert losses(tmp_path / "plain") == losses(tmp_path / "kept")
    assert len(set(losses(tmp_path / "plain"))) == 4
    assert kept.reuse.cache.size()[0] == 2 + 1  # two batches, one of dev
    report = json.loads((tmp_path / "kept/report.json").read_text())
    assert report["prefix"]["layers"] == 1


def test_kept_rows_give_the_same_run_up_to_rounding_on_disk_and_in_memory(
    build: Build, tmp_path: Path
) -> None:
    words = (*VARIANTS, *LONGER)
    disk = ("prefix.cache=disk", f"prefix.folder={tmp_path / 'states'}")
    run(build("adapt", *words), tmp_path / "plain")
    run(build("adapt", *words, MEMORY), tmp_path / "memory")
    run(build("adapt", *words, *disk), tmp_path / "disk")
    assert losses(tmp_path / "memory") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    assert losses(tmp_path / "memory") == losses(tmp_path / "disk")
    again = build("adapt", *words, *disk)
    run(again, tmp_path / "again")
    assert again.reuse.seconds == 0.0  # every state was found
    assert losses(tmp_path / "again") == losses(tmp_path / "disk")
    other = build("adapt", *words, *disk, "augment.tilt_db=1")
    assert other.reuse.cache.size()[0] == 0  # other inputs, other states


def test_what_is_kept_needs_no_audio(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = build("adapt", *VARIANTS, MEMORY)
    objective.train()
    objective(objective.batch(0, 0))
    monkeypatch.setattr(objective.speech, "row", None)
    monkeypatch.setattr(objective.encoder, "extract", None)
    again = objective.batch(0, 0)
    assert not any(name.startswith("features") for name in again)
    assert torch.isfinite(objective(again)[0])


def test_a_saved_adapter_reads_what_the_objective_reads(build: Build, tmp_path: Path) -> None:
    objective = build("adapt", RANK, "trainer.learning_rate=0.02", "margin_s=0.05")
    run(objective, tmp_path, average=0.0)
    objective.eval()
    recogniser = load(objective.config.base, adapter=tmp_path / "last")
    signals = [signal for items in objective.dev.sets.values() for signal, _ in items]
    with torch.no_grad():
        wanted = objective._read("any", signals)
    found = recogniser.decode_batch(signals)
    assert [one.text for one in found] == wanted
    assert recogniser.margin_s == 0.05
    assert recogniser.language == "en"


def test_the_head_alone_is_trained_on_the_whole_frozen_encoder(
    build: Build, tmp_path: Path
) -> None:
    objective = build("adapt", "arm=head", "repeat.batches=2", MEMORY, *LONGER)
    assert objective.reuse.prefix.depth == 2
    before = objective.head.weight.detach().clone()
    run(objective, tmp_path)
    assert set(objective.state_dict()) == {"head.weight", "head.bias"}
    assert not torch.equal(objective.head.weight, before)
    recogniser = load(objective.config.base, adapter=tmp_path / "best")
    assert recogniser.decoder.alphabet == objective.alphabet
    assert "without an adapter" in (tmp_path / "best/README.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["parameters"]["share"] == 0


def test_full_fine_tuning_trains_everything_and_saves_a_model(build: Build, tmp_path: Path) -> None:
    objective = build("adapt", "arm=full", *LONGER)
    before = fingerprint_module(objective.encoder.model)
    run(objective, tmp_path)
    assert fingerprint_module(objective.encoder.model) != before
    assert objective.skips_parameters
    recogniser = load(tmp_path / "last")
    assert recogniser.decoder.alphabet.symbols == objective.alphabet.symbols
    weights = objective.encoder.model.state_dict()
    for name, part in recogniser.encoder.model.state_dict().items():
        # `last` is the average, stored in half precision
        torch.testing.assert_close(part, weights[name], rtol=0.5, atol=0.1)
    stored = load_file(checkpoint(tmp_path) / "model.safetensors")
    assert {name.split(".")[0] for name in stored} == {"encoder", "head"}


def test_recomputed_activations_give_the_same_gradients(build: Build) -> None:
    found = []
    for recompute in (False, True):
        objective = build("adapt", RANK, "head_dropout=0")
        if recompute:
            objective.checkpoint_gradients()
        objective.train()
        for part in objective.adapter.parameters():
            torch.nn.init.constant_(part, 0.01)
        torch.manual_seed(0)
        torch.nn.init.normal_(objective.head.weight)
        loss, _ = objective(objective.batch(0, 0))
        loss.backward()
        found.append([part.grad for part in objective.adapter.parameters()])
        assert any(layer.training for layer in objective._recomputed) == recompute
        objective.eval()
        assert not any(layer.training for layer in objective._recomputed)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
        assert one.any()


def test_layers_that_would_drop_values_are_not_recomputed(build: Build, base: Path) -> None:
    objective = build("adapt", RANK, f"base={base_folder(base, 'whisper')}", "batch.max_s=1.5")
    objective.encoder.model.layers[0].dropout = 0.1
    with pytest.raises(ConfigError, match=r"would drop 0\.1 of their values"):
        objective.checkpoint_gradients()


def test_a_frozen_encoder_drops_nothing_in_training(build: Build) -> None:
    objective = build("adapt", RANK)
    objective.train()
    assert objective.adapter.training
    assert not any(part.training for part in objective.encoder.model.modules())
    assert build("adapt", "arm=full").train().encoder.model.training


def test_a_method_adds_its_penalty_and_acts_after_each_step(build: Build, tmp_path: Path) -> None:
    objective = build("adapt", RANK)
    steps: list[int] = []
    weights = [part for part in objective.adapter.parameters()]
    objective.handle.method = replace(
        objective.handle.method,
        penalty=lambda adapters: 1000 + sum(part.sum() for part in weights) * 0,
        after_step=lambda adapters, step: steps.append(step),
    )
    run(objective, tmp_path)
    assert steps == [1, 2]
    assert min(losses(tmp_path)) > 900


def test_settings_that_do_not_fit_are_named(build: Build, base: Path) -> None:
    def problem(*words: str) -> str:
        with pytest.raises(ConfigError) as caught:
            build("adapt", *words)
        return str(caught.value)

    assert "Did you mean lora" in problem("method=lorra")
    assert "Did you mean rank" in problem("adapter.rnk=2")
    assert "make every input new. Set repeat.batches=N" in problem(UPPER, MEMORY)
    assert "no frozen layer lies below" in problem("repeat.batches=2", MEMORY)
    assert "arm=full has none" in problem("arm=full", "repeat.batches=2", MEMORY)
    assert "set prefix.folder=FOLDER" in problem(*BATCHES, "prefix.cache=disk")
    whisper = f"base={base_folder(base, 'whisper')}"
    assert "the window of whisper, 2 s" in problem(whisper, "batch.max_s=8")
    assert "transformers has for w2v_bert and not for whisper" in problem(
        whisper, "batch.max_s=2", "arm=full"
    )
    assert "there is no bundled model or folder" in problem("base=mini-usn")


def test_a_checkpoint_of_another_adapter_is_refused(build: Build, tmp_path: Path) -> None:
    run(build("adapt", RANK), tmp_path, sitting_s=1e-6)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        run(build("adapt", "adapter.rank=3"), tmp_path)


def test_a_finished_run_keeps_its_report(build: Build, tmp_path: Path) -> None:
    words = (RANK, "trainer.steps=2")
    objective = build("adapt", *words)
    run(objective, tmp_path)
    report = (tmp_path / "report.json").read_bytes()
    saved = (tmp_path / "last/adapter_config.json").read_bytes()
    run(build("adapt", *words), tmp_path)
    assert (tmp_path / "report.json").read_bytes() == report
    assert (tmp_path / "last/adapter_config.json").read_bytes() == saved
    text = objective.report(tmp_path)
    assert "adapter lora" in text
    assert "s a step (median of 2)" in text
    assert "best: tones WER" in text
    assert build("adapt", *words).report(tmp_path / "elsewhere") == ""


def test_a_dry_run_says_what_is_trained(build: Build) -> None:
    summary = build("adapt", *BATCHES, MEMORY).summary()
    assert summary["trained"] == "adapter lora"
    assert summary["frozen prefix"] == "1 layers, memory"
    assert "efghilnoprstuw" in summary["alphabet"]
