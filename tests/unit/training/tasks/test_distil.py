"""The distillation of one encoder: its bases, its refusals, its scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from speechadapt.core.errors import ConfigError
from tests.tiny_tasks import base_folder

LORA = ("method=lora", "adapter.rank=2", "decoder_weight=0")


def test_any_family_learns_to_hear_through_noise(build: Callable[..., Any], base) -> None:
    words = (f"base={base_folder(base)}", "degrade.noise_prob=1", *LORA)
    objective = build("distil", *words)
    assert objective.score == "loss"
    assert objective.models.teacher is objective.models.student
    batch = objective.batch(0, 0)
    assert not torch.equal(batch["features"], batch["teacher_features"])
    objective.train()
    loss, figures = objective(batch)
    loss.backward()
    assert figures["frames"] > 0.0
    assert all(one.grad is not None for one in objective.parameters())
    objective.eval()
    scores = objective.evaluate()
    assert scores.keys() == {"loss", "frames", "layers", "skipped"}
    assert scores["loss"] == pytest.approx(scores["frames"] + scores["layers"], rel=1e-4)


def test_patches_of_a_spectrogram_are_compared_too(build: Callable[..., Any], base) -> None:
    words = (f"base={base_folder(base, 'ast')}", "degrade.band_limit_prob=1", *LORA)
    objective = build("distil", *words)
    loss, figures = objective(objective.batch(0, 0))
    assert bool(loss.isfinite())
    assert figures["layers"] > 0.0


def test_student_and_teacher_must_hear_something_else(build: Callable[..., Any], base) -> None:
    with pytest.raises(ConfigError, match="would hear the same"):
        build("distil", f"base={base_folder(base)}", *LORA)
    with pytest.raises(ConfigError, match="padding=full changes nothing for whisper"):
        build("distil", "padding=full")


def test_an_untrained_adapter_changes_no_score(build: Callable[..., Any]) -> None:
    objective = build("distil")
    objective.eval()
    assert objective.score == "wer"
    scores = objective.evaluate()
    assert scores.keys() == {"loss", "frames", "layers", "skipped", "wer", "cer", "tones"}
    assert scores == objective.evaluate()
    # untrained, the adapter changes nothing
    assert objective.frame_scores(None) == objective.frame_scores("native_length")


def test_settings_are_checked_together(build: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="Did you mean native_length"):
        build("distil", "method=nativ_length")
    with pytest.raises(ConfigError, match=r"adapter\.rank"):
        build("distil", "adapter.rank=0")


def test_the_same_seed_gives_the_same_adapter(build: Callable[..., Any]) -> None:
    first, again = (build("distil").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = build("distil", "trainer.seed=1").state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)
