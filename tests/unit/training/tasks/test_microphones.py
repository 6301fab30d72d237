"""Adaptation of a tiny encoder to several made microphones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from speechadapt.adapters.second_attention import RECORDING
from speechadapt.adapters.store import read

Build = Callable[..., Any]


def moved(objective: Any) -> None:
    with torch.no_grad():
        for parameter in objective.handle.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)


@pytest.mark.parametrize(
    ("method", "words"),
    [("channel_attention", ()), ("anchor_attention", ("near=true", "microphones=3"))],
)
def test_microphones_of_a_recording_meet_and_are_read_as_one(
    build: Build, method: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    objective = build("microphones", f"method={method}", *words)
    batch = objective.batch(0, 0)
    rows, number = len(batch["label_lengths"]), objective.config.microphones
    assert len(batch["features"]) == rows * number
    loss, _ = objective(batch)
    loss.backward()
    assert objective.adapter.sites["layer/0/attn/out"].out.weight.grad.abs().sum() > 0
    moved(objective)
    objective.eval()
    with torch.no_grad():
        together, lengths = objective._frames(batch)
        assert len(together) == len(lengths) == rows
        alone = objective.encoder(batch["features"], batch["lengths"])[0]
    apart, _ = objective.microphones.read(alone, batch["lengths"])
    assert not torch.allclose(apart, together, atol=1e-3)
    assert RECORDING not in objective.encoder.attached.selection.conditions


def test_dev_recordings_are_heard_alike_each_time_and_scored_as_one(
    build: Build, tmp_path: Path
) -> None:
    objective = build("microphones")
    objective.eval()
    with torch.no_grad():
        scores = objective.evaluate()
        assert objective.evaluate() == scores
    items = sum(map(len, objective.dev.sets.values()))
    assert sum(len(score.items) for score in objective.dev.scored.values()) == items
    objective.save(tmp_path)
    assert read(tmp_path).method == "channel_attention"


def test_a_method_that_hears_each_by_itself_is_something_to_compare_with(build: Build) -> None:
    objective = build("microphones", "method=lora", "adapter.rank=2")
    loss, _ = objective(objective.batch(0, 0))
    assert bool(loss.isfinite())
