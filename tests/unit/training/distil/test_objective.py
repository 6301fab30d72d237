"""What every run with a teacher does: who is frozen, what is saved, what is scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import speechadapt
from speechadapt.adapters import store
from speechadapt.adapters.attach import active
from speechadapt.training.loop import train
from tests.tiny_tasks import whisper_folder

WORDS = ("augment.speed_prob=0", "degrade.noise_prob=1", "trainer.learning_rate=3e-3")


@pytest.fixture(scope="module")
def trained(build: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Train a tiny distillation once; return the objective, its folder and the base's bytes."""
    objective = build("distil", *WORDS, "trainer.average=0.5")
    folder = tmp_path_factory.mktemp("distilled")
    before = {key: one.clone() for key, one in _base(objective).items()}
    train(objective, objective.config.trainer, folder)
    return objective, folder, before


def _base(objective: Any) -> dict[str, torch.Tensor]:
    decoder = objective.models.decoder.state_dict()
    return {**objective.handle.encoder.model.state_dict(), **decoder}


def test_the_base_keeps_its_bytes_and_gets_no_gradient(trained: Any) -> None:
    objective, _, before = trained
    after = _base(objective)
    assert list(after) == list(before)
    assert all(torch.equal(after[key], one) for key, one in before.items())
    models = objective.models
    frozen = [*models.student.model.parameters(), *models.decoder.parameters()]
    assert all(one.grad is None and not one.requires_grad for one in frozen)


def test_a_checkpoint_holds_the_adapter_alone(trained: Any) -> None:
    objective, folder, _ = trained
    (checkpoint,) = (folder / "checkpoints").glob("step-*")
    own = {f"adapter.{key}" for key in objective.adapter.state_dict()}
    held = load_file(checkpoint / "model.safetensors")
    assert held.keys() == own
    assert all(load_file(path).keys() <= own for path in checkpoint.glob("average*"))
    count = sum(tensor.numel() for tensor in held.values())
    assert count == objective.handle.num_parameters()


def test_the_saved_adapter_loads_and_is_heard_as_it_was_trained(trained: Any, base: Path) -> None:
    _, folder, _ = trained
    stored = store.read(folder / "last")
    assert stored.method == "native_length"
    assert stored.details["training"]["padding"] == "native"
    assert stored.details["scores"]["tones"]["items"] == 2
    recogniser = speechadapt.load(
        whisper_folder(base), adapter=folder / "last", temperature=(0.0,), language="en"
    )
    assert recogniser.encoder.padding == "native"
    plain = speechadapt.load(
        whisper_folder(base), adapter=folder / "last", padding="full", language="en"
    )
    assert plain.encoder.padding == "full"


def test_the_report_compares_teacher_before_and_after(trained: Any) -> None:
    objective, folder, _ = trained
    report = json.loads((folder / "report.json").read_text())
    assert report["scores"].keys() == {"teacher", "without adapter", "best", "last"}
    assert report["frame_error"].keys() == {"last", "without adapter"}
    assert report["parameters"]["trained"] == objective.handle.num_parameters()
    assert report["steps_measured"] == 2
    lines = objective.report(folder).splitlines()
    assert any(line.startswith("without adapter: dev frame error") for line in lines)
    assert any(line.startswith("teacher: tones WER") for line in lines)
    stamp = (folder / "report.json").read_bytes()
    objective.meter.seconds.clear()
    objective.finish(folder)
    assert (folder / "report.json").read_bytes() == stamp


@pytest.fixture(scope="module")
def objective(build: Callable[..., Any]) -> Any:
    """Return an untrained tiny distillation."""
    return build("distil", *WORDS)


def test_the_loss_falls_on_a_batch_and_every_tensor_gets_a_gradient(objective: Any) -> None:
    objective.train()
    assert not objective.handle.encoder.model.training
    batch = objective.batch(0, 0)
    optimiser = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses, reached = [], set[str]()
    for _ in range(8):
        optimiser.zero_grad()
        loss, figures = objective(batch)
        loss.backward()
        reached |= {
            name
            for name, one in objective.named_parameters()
            if one.grad is not None and bool(one.grad.abs().sum() > 0)
        }
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    assert figures.keys() == {"frames", "layers", "skipped", "divergence"}
    assert reached == {name for name, _ in objective.named_parameters()}


def test_the_teacher_hears_no_adapter_and_the_student_does(objective: Any) -> None:
    batch = objective.batch(1, 0)
    with torch.no_grad():
        student, teacher = objective._hear(batch)
        for parameter in objective.handle.parameters():
            parameter.add_(0.2)
        moved, same = objective._hear(batch)
    assert torch.equal(teacher.frames, same.frames)
    assert all(map(torch.equal, teacher.layers, same.layers))
    assert not torch.allclose(student.frames, moved.frames, atol=1e-3)
    assert not teacher.frames.requires_grad
    features, lengths = batch["teacher_features"], batch["teacher_lengths"]
    with torch.no_grad(), active(objective.handle.encoder, None):
        base, _ = objective.models.teacher(features, lengths)
    assert torch.equal(base, teacher.frames)


def test_what_lies_past_a_clip_changes_no_loss(objective: Any) -> None:
    objective.eval()
    batch = objective.batch(2, 0)
    lengths, features = batch["lengths"], batch["features"].clone()
    past = torch.arange(features.shape[2])[None, None, :] >= lengths[:, None, None]
    dirty = batch | {"features": features.masked_fill(past, 9.0)}
    with torch.no_grad():
        clean, _ = objective(batch)
        again, _ = objective(dirty)
    assert bool(past.any())
    assert float(again) == pytest.approx(float(clean), rel=1e-4)


def test_rows_without_a_text_have_no_token_loss(objective: Any) -> None:
    batch = objective.batch(3, 0)
    silent = batch | objective.reader.batch([""] * len(batch["lengths"]))
    with torch.no_grad():
        _, figures = objective(silent)
    assert figures["divergence"] == 0.0
    assert figures["frames"] > 0.0


def test_a_batch_is_the_same_again(build: Callable[..., Any], objective: Any) -> None:
    torch.manual_seed(5)
    first, again = objective.batch(2, 0), build("distil", *WORDS).batch(2, 0)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_frozen_parts_move_with_the_objective(build: Callable[..., Any]) -> None:
    moved = build("distil", *WORDS).double()
    models = moved.models
    parts = [*models.student.model.parameters(), *models.decoder.parameters(), *moved.parameters()]
    assert {one.dtype for one in parts} == {torch.float64}


def test_the_text_loss_is_the_cross_entropy_of_the_transcript(build: Callable[..., Any]) -> None:
    written = build("distil", "decoder_weight=0", "text_weight=2", "frames.final=0",
                    "frames.layer=0")  # fmt: skip
    written.eval()
    batch = written.batch(0, 0)
    with torch.no_grad():
        loss, figures = written(batch)
        student, _ = written._hear(batch)
        logits = written.reader.logits(student.frames, student.lengths, batch["inputs"], "native")
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"])
    assert float(loss) == pytest.approx(2 * float(expected), rel=1e-4)
    assert figures["text"] == pytest.approx(float(expected), rel=1e-4)
