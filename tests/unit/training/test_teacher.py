from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.tiny import write_tiny
from speechadapt.training.teacher import FrameTeacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("teacher")
    write_tiny("w2v_bert", target)
    return target


@pytest.fixture
def clips() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    return [0.1 * torch.randn(count, generator=random) for count in (9600, 16000)]


def test_targets_are_the_teachers_frames_at_the_same_times(
    folder: Path, clips: list[torch.Tensor]
) -> None:
    teacher, rate = FrameTeacher(folder, 8, 100.0), load_encoder(folder).frame_rate
    wanted = teacher._targets(teacher.inputs(clips, [1.0, 1.0]), 40)
    frames, _ = load_encoder(folder).encode(clips)
    for place in (0, 7, 39):
        index = int((place + 0.5) / 100.0 * rate)
        expected = functional.layer_norm(frames[1, index], frames.shape[-1:])
        assert torch.allclose(wanted[1, place], expected, atol=1e-5)


def test_a_faster_student_looks_further_into_the_teacher(
    folder: Path, clips: list[torch.Tensor]
) -> None:
    teacher = FrameTeacher(folder, 8, 50.0)
    plain = teacher._targets(teacher.inputs(clips, [1.0, 1.0]), 40)
    fast = teacher._targets(teacher.inputs(clips, [1.0, 2.0]), 20)
    # the middle of the student's frame 5 is second 0.11 of it and second 0.22 of the teacher
    assert torch.equal(fast[1, 5], plain[1, 11])
    assert not torch.equal(fast[1, 5], plain[1, 5])


def test_the_error_ignores_padding_and_reaches_the_student_alone(
    folder: Path, clips: list[torch.Tensor]
) -> None:
    torch.manual_seed(0)
    teacher = FrameTeacher(folder, 8, 50.0)
    batch = teacher.inputs(clips, [1.0, 1.0])
    frames = torch.randn(2, 50, 8, requires_grad=True)
    lengths = torch.tensor([30, 50])
    error = teacher(frames, lengths, batch)
    error.backward()
    assert frames.grad is not None
    assert not frames.grad[0, 30:].any()
    assert frames.grad[0, :30].any()
    assert {name for name, _ in teacher.named_parameters()} == {"predict.weight", "predict.bias"}
    changed = frames.detach().clone()
    changed[0, 30:] = 99.0
    assert torch.equal(teacher(changed, lengths, batch), error)


def test_an_encoder_decoder_learns_from_a_teacher(build: Callable[..., Any], folder: Path) -> None:
    taught = build("seq2seq", f"teacher={folder}", "teacher_weight=0.5")
    taught.train()
    loss, figures = taught(taught.batch(0, 0))
    weighed = 0.7 * figures["attention"] + 0.3 * figures["ctc"] + 0.5 * figures["teacher"]
    assert float(loss.detach()) == pytest.approx(weighed, rel=1e-5)
    assert not any("teacher._teacher" in name for name in taught.state_dict())


def test_a_folder_without_a_model_is_named_before_the_run(tmp_path: Path) -> None:
    from speechadapt.training.tasks.seq2seq import Config

    (problem,) = Config(teacher=str(tmp_path)).problems()
    assert "holds no model.safetensors" in problem
