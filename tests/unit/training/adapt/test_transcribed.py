from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from speechadapt.training.adapt.transcribed import read_ground
from speechadapt.training.tasks.adapt import AdaptObjective

Build = Callable[..., Any]
UPPER = ("roles=[layer.1.attn.v]", "adapter.rank=2", "repeat.batches=2", "prefix.cache=memory")


def test_runs_on_one_ground_read_and_compute_once(build: Build) -> None:
    config = build("adapt", *UPPER).config
    ground = read_ground(config, 16000)
    first, second = (AdaptObjective(config, ground) for _ in range(2))
    assert first.speech is second.speech
    for objective in (first, second):
        objective.train()
        objective(objective.batch(0, 0))
        objective.eval()
        with torch.no_grad():
            objective.evaluate()
    assert first.reuse.seconds > 0.0 == second.reuse.seconds
    assert first.reuse.cache is second.reuse.cache
    assert first.dev.scored is not second.dev.scored


def test_states_of_other_depths_are_kept_apart(build: Build) -> None:
    config = build("adapt", *UPPER).config
    ground = read_ground(config, 16000)
    AdaptObjective(config, ground)
    head = build("adapt", "arm=head", *UPPER[2:]).config
    objective = AdaptObjective(head, ground)
    assert set(ground.caches) == {1, 2}
    assert objective.reuse.cache is ground.caches[2]


def test_what_is_saved_says_what_reads_its_head(build: Build, tmp_path: Path) -> None:
    objective = build("adapt", "adapter.rank=2", "margin_s=0.05")
    described = objective.described_head
    assert described.alphabet is objective.alphabet
    assert described.margin_s == 0.05
    facts = objective.training_facts()
    assert facts["learning_rate"] == objective.config.trainer.learning_rate
    assert facts["steps"] == 0
    assert not (tmp_path / "scores.json").exists()
    objective.save(tmp_path)
    assert (tmp_path / "scores.json").is_file()


def test_loss_is_per_label_and_short_rows_are_told(build: Build) -> None:
    objective = build("adapt", "adapter.rank=2", "head_dropout=0")
    batch = objective.batch(0, 0)
    loss, figures = objective(batch)
    assert loss.ndim == 0
    assert figures["too_short"] == pytest.approx(0.0)
    long = batch | {
        "labels": batch["labels"][:, :1].expand(-1, 4000),
        "label_lengths": torch.full_like(batch["label_lengths"], 4000),
    }
    assert objective(long)[1]["too_short"] == 1.0
