"""Adaptation of a tiny encoder to made tones that are told something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from speechadapt.adapters.store import read
from speechadapt.config.resolve import resolve
from speechadapt.core.errors import ConfigError
from tests.tiny_tasks import write_recipe

Build = Callable[..., Any]

WAYS = {
    "enrolment": ("adapter.width=8", "adapter.heads=2", "adapter.token_width=8"),
    "activity": ("method=control_track", "augment.tempo=[1,1]"),
    "words": ("adapter.memory=words", "adapter.width=8", "adapter.token_width=8"),
}


def moved(objective: Any) -> None:
    with torch.no_grad():
        for parameter in objective.handle.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)


@pytest.mark.parametrize("tell", list(WAYS))
def test_what_is_told_changes_what_is_heard_and_is_learned_from(build: Build, tell: str) -> None:
    objective = build("conditioned", f"tell={tell}", *WAYS[tell])
    moved(objective)
    batch = objective.batch(0, 0)
    assert all(torch.equal(part, batch[key]) for key, part in objective.batch(0, 0).items())
    loss, _ = objective(batch)
    loss.backward()
    assert all(
        part.grad is not None and bool(part.grad.any()) for part in objective.handle.parameters()
    )
    told = {"enrolment": "enrolment", "activity": "track", "words": "words"}[tell]
    with torch.no_grad():
        frames, _ = objective._frames(batch)
        other = {**batch, told: batch[told].roll(1, dims=0)}
        if tell == "enrolment":
            other["enrolment_lengths"] = batch["enrolment_lengths"].roll(1)
        changed, _ = objective._frames(other)
        own, _ = objective._frames({key: part[1:] for key, part in batch.items()})
    assert not torch.allclose(frames, changed, atol=1e-5)
    valid = int(batch["lengths"][1])
    torch.testing.assert_close(own[0, :valid], frames[1, :valid], rtol=1e-4, atol=1e-4)
    assert not objective.encoder.attached.selection.conditions


@pytest.mark.parametrize("tell", list(WAYS))
def test_dev_is_told_alike_each_time(build: Build, tell: str, tmp_path: Path) -> None:
    objective = build("conditioned", f"tell={tell}", *WAYS[tell])
    objective.eval()
    with torch.no_grad():
        scores = objective.evaluate()
        assert str(objective.evaluate()) == str(scores)  # which may hold NaN
    assert ({"recall", "inserted"} if tell == "words" else {"other"}) <= scores.keys()
    ids = [item.id for items in objective.dev.sets.values() for _, item in items]
    assert len(ids) == 4
    assert all(("+" in one) == (tell != "words") for one in ids)
    objective.save(tmp_path)
    assert read(tmp_path).details["training"]["told"] == tell


def test_the_head_alone_hears_the_same_and_is_told_nothing(build: Build) -> None:
    told = build("conditioned", *WAYS["enrolment"]).batch(1, 0)
    alone = build("conditioned", "arm=head").batch(1, 0)
    assert alone.keys() == {"features", "lengths", "labels", "label_lengths"}
    assert all(torch.equal(part, told[key]) for key, part in alone.items())


def test_settings_that_exclude_one_another_are_refused(base: Path) -> None:
    words = write_recipe(base, "conditioned", base / "pack")
    for more, match in (
        (("method=lora", "arm=full"), "an encoder alone can be told nothing"),
        (("batch.join_prob=0.5",), "rows are told something of one utterance"),
        (("tell=activity", "method=control_track"), "would move the speech away from the"),
        (("tell=activity",), "reads memory of every row, which this run does not tell"),
    ):
        with pytest.raises(ConfigError, match=match):
            resolve([*words, *more], [base])
