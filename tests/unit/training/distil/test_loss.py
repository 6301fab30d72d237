"""The errors between student and teacher: their scale, their masks, and what is compared."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.attach import attach
from speechadapt.core.errors import ConfigError, ShapeError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import families, load_encoder
from speechadapt.training.distil.loss import (
    FrameLoss,
    FrameLossConfig,
    Heard,
    divergence,
    frame_error,
    hear,
    layer_paths,
)

PLAIN = FrameLossConfig(cosine=0.0)


def frames(*shape: int, seed: int = 0) -> Tensor:
    """Return random states."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def every(states: Tensor) -> Tensor:
    """Return a mask under which all positions count."""
    return torch.ones(states.shape[:2], dtype=torch.bool)


def test_the_mean_frame_has_the_error_one_at_any_scale() -> None:
    teacher = frames(2, 5, 3)
    for scale in (1e-2, 1.0, 1e3):
        target = scale * teacher
        mean = target.mean((0, 1)).expand_as(target)
        assert float(frame_error(mean, target, every(target))) == pytest.approx(1.0, abs=1e-3)
        assert float(frame_error(target, target, every(target))) == 0.0


def test_the_angle_counts_where_it_is_weighed() -> None:
    teacher = frames(1, 4, 3)
    opposite = -teacher
    plain = frame_error(opposite, teacher, every(teacher))
    weighed = frame_error(opposite, teacher, every(teacher), cosine=0.5)
    assert float(weighed - plain) == pytest.approx(1.0, abs=1e-5)  # 0.5 (1 - -1)


def test_frames_past_either_length_count_nowhere() -> None:
    student, teacher = frames(2, 6, 3), frames(2, 8, 3, seed=1)
    mine = Heard(student, torch.tensor([6, 3]))
    wanted = Heard(teacher, torch.tensor([5, 4]))
    loss, figures = FrameLoss(PLAIN)(mine, wanted)
    student[0, 5:], student[1, 3:] = 1e6, 1e6
    teacher[0, 5:], teacher[1, 3:] = -1e6, -1e6
    again, _ = FrameLoss(PLAIN)(mine, wanted)
    assert torch.equal(loss, again)
    kept = torch.cat([student[0, :5], student[1, :3]])
    target = torch.cat([teacher[0, :5], teacher[1, :3]])
    expected = (kept - target).square().sum() / (target - target.mean(0)).square().sum()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert figures == {"frames": pytest.approx(float(loss)), "skipped": 0.0}


def test_layers_are_averaged_beside_the_output() -> None:
    lengths = torch.tensor([4])
    target, zero = frames(1, 4, 3), torch.zeros(1, 4, 3)
    layers = (frames(1, 4, 3, seed=1), frames(1, 4, 3, seed=2))
    teacher = Heard(target, lengths, layers)
    student = Heard(target, lengths, (layers[0], zero))
    config = FrameLossConfig(final=2.0, layer=3.0, cosine=0.0)
    loss, figures = FrameLoss(config)(student, teacher)
    alone = frame_error(zero, layers[1], every(zero))
    assert figures["frames"] == 0.0
    assert figures["layers"] == pytest.approx(float(alone) / 2)
    assert float(loss) == pytest.approx(3 * float(alone) / 2, rel=1e-5)


def test_a_term_that_is_not_a_number_is_left_out_and_counted() -> None:
    lengths, target = torch.tensor([4]), frames(1, 4, 3)
    broken = target.clone()
    broken[0, 1, 1] = math.inf
    student = target.clone().requires_grad_()
    teacher = Heard(target + 1, lengths, (broken,))
    loss, figures = FrameLoss(PLAIN)(Heard(student, lengths, (student,)), teacher)
    assert figures["skipped"] == 1.0
    assert "layers" not in figures
    loss.backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())
    assert float(student.grad.abs().sum()) > 0


def test_a_term_of_weight_zero_is_not_computed() -> None:
    lengths, target = torch.tensor([4]), frames(1, 4, 3)
    heard = Heard(target, lengths, (target,))
    _, figures = FrameLoss(FrameLossConfig(final=0.0))(heard, heard)
    assert "frames" not in figures
    assert "layers" in figures


def test_other_widths_and_other_layers_are_refused() -> None:
    lengths = torch.tensor([4])
    narrow, wide = Heard(frames(1, 4, 3), lengths), Heard(frames(1, 4, 5), lengths)
    with pytest.raises(ShapeError, match="width 3 were to be compared with states of width 5"):
        FrameLoss(PLAIN)(narrow, wide)
    more = Heard(frames(1, 4, 3), lengths, (frames(1, 4, 3),))
    with pytest.raises(ShapeError, match="0 layers of the student"):
        FrameLoss(PLAIN)(narrow, more)


def test_tokens_that_are_no_frames_are_compared_whole() -> None:
    lengths, target = torch.tensor([2]), frames(1, 4, 3)
    patches, zero = frames(1, 9, 3, seed=3), torch.zeros(1, 9, 3)
    student, teacher = Heard(target, lengths, (zero,)), Heard(target, lengths, (patches,))
    _, figures = FrameLoss(PLAIN)(student, teacher)
    assert figures["layers"] == pytest.approx(float(frame_error(zero, patches, every(zero))))


@pytest.mark.parametrize("family", list(families()))
def test_every_encoder_has_its_layers_compared(family: str, tiny_folder, signal) -> None:
    encoder = load_encoder(tiny_folder(family))
    paths = layer_paths(encoder, FrameLossConfig())
    assert len(paths) == 2
    assert layer_paths(encoder, FrameLossConfig(layers=(1,))) == paths[1:]
    assert layer_paths(encoder, FrameLossConfig(layer=0.0)) == ()
    with pytest.raises(ConfigError, match=r"\[2\], but .* has the layers 0 to 1"):
        layer_paths(encoder, FrameLossConfig(layers=(0, 2)))
    with torch.no_grad():
        heard = hear(encoder, *encoder.extract([signal(9000), signal(6000, 1)]), paths)
    assert [one.shape[-1] for one in heard.layers] == [encoder.dim] * 2
    assert not torch.allclose(heard.layers[0], heard.layers[1])
    assert not any(one._forward_hooks for one in encoder.modules())


def test_layers_are_kept_as_the_adapter_leaves_them(tiny_folder, signal) -> None:
    encoder: Encoder = load_encoder(tiny_folder("whisper"), padding="native")
    batch = encoder.extract([signal(9000)])
    paths = layer_paths(encoder, FrameLossConfig(layers=(0,)))
    with torch.no_grad():
        before = hear(encoder, *batch, paths).layers[0]
        handle = attach(encoder, "houlsby", config={"bottleneck": 4}, roles=["layer.0.end"])
        for parameter in handle.parameters():
            parameter.add_(0.1)
        after = hear(encoder, *batch, paths).layers[0]
    assert not torch.allclose(before, after, atol=1e-3)


def test_divergence_is_zero_for_equal_tokens_and_counts_the_known_alone() -> None:
    student, teacher = frames(2, 3, 7), frames(2, 3, 7, seed=1)
    known = torch.tensor([[True, True, False], [False, False, True]])
    assert float(divergence(teacher, teacher, known)) == pytest.approx(0.0, abs=1e-6)
    p, q = teacher[known].softmax(-1), student[known].softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean()
    assert float(divergence(student, teacher, known)) == pytest.approx(float(expected), rel=1e-4)
    assert float(divergence(student, teacher, torch.zeros_like(known))) == 0.0
