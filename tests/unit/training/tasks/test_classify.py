from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.files import read_json
from speechadapt.training.loop import train
from speechadapt.training.tasks.classify import MeanHead

Build = Callable[..., Any]


@torch.no_grad()
def loss_of(objective: Any) -> float:
    """Return the loss on the first batch."""
    return float(objective(objective.batch(0, 0))[0])


def test_the_mean_leaves_padding_out() -> None:
    head = MeanHead(4, 3).eval()
    frames = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([2, 5])
    changed = frames.clone()
    changed[0, 2:] = 9.0
    torch.testing.assert_close(head(changed, lengths), head(frames, lengths))
    alone = head(frames[:1, :2], lengths[:1])
    torch.testing.assert_close(alone, head(frames, lengths)[:1])


def test_every_clip_comes_once_before_any_comes_again(build: Build) -> None:
    objective = build("classify", "augment.time_masks=0", "augment.band_masks=0")
    count = len(objective.clips.train)
    rows = objective.config.batch.max_rows
    assert count % rows == 0
    seen = [objective.batch(step, 0)["features"] for step in range(count // rows)]
    clips = torch.cat(seen).flatten(1)
    assert len({tuple(clip.tolist()) for clip in clips}) == count
    again = objective.batch(count // rows, 0)["features"]
    assert not torch.equal(again, seen[0])


@pytest.mark.parametrize("arm", ["adapter", "head", "full"])
def test_an_arm_learns_tones_and_trains_only_its_part(
    build: Build, arm: str, tmp_path: Path
) -> None:
    words = ["trainer.steps=40", "trainer.learning_rate=1e-2", "trainer.evaluate_every=40"]
    words += ["augment.time_masks=0", "augment.band_masks=0", "augment.formant=0"]
    words += ["batch.max_rows=8", "trainer.checkpoint_every=40"]
    objective = build("classify", f"arm={arm}", *words)
    before = {name: one.clone() for name, one in objective.encoder.model.state_dict().items()}
    objective.eval()
    start = loss_of(objective)
    train(objective, objective.config.trainer, tmp_path)
    report = read_json(tmp_path / "report.json")
    assert report["dev"] == objective.scores | {"items": len(objective.clips.dev)}
    assert (report["file_bytes"] > 1e5) == (arm == "full")
    objective.eval()
    assert loss_of(objective) < 0.9 * start
    assert objective.evaluate()["error"] <= 1 / 3  # by chance: 2 / 3
    after = objective.encoder.model.state_dict()
    same = all(torch.equal(after[name], value) for name, value in before.items())
    assert same == (arm != "full")
    assert objective.predict("test").count(objective.labels[0]) < len(objective.clips.test)


def test_the_saved_head_says_what_its_outputs_are(build: Build, tmp_path: Path) -> None:
    from speechadapt.adapters import store

    objective = build("classify")
    objective.save(tmp_path / "adapter")
    stored = store.read(tmp_path / "adapter")
    assert stored.details["head"]["labels"] == list(objective.labels)


def test_the_head_is_started_on_frames_without_the_adapter(build: Build) -> None:
    words = ["augment.time_masks=0", "augment.band_masks=0", "augment.formant=0"]
    words += ["augment.tilt_db=0", "augment.tempo=[1,1]", "batch.max_rows=12"]
    plain = build("classify", "arm=head", *words)
    # this adapter changes the frames from the first
    far = ["method=ast_bottleneck", "adapter={bottleneck: 4, order: sequential, residual: false}"]
    adapted, head = (
        build("classify", "head_start=200", *each, *words) for each in (far, ["arm=head"])
    )
    for name, tensor in adapted.head.state_dict().items():
        assert torch.equal(tensor, head.head.state_dict()[name])
    assert loss_of(head.eval()) < 0.9 * loss_of(plain.eval())
    assert all(one.grad is None for one in head.parameters())


@pytest.mark.parametrize("arm", ["adapter", "head", "full"])
def test_what_was_saved_is_restored(build: Build, arm: str, tmp_path: Path) -> None:
    objective = build("classify", f"arm={arm}").eval()
    with torch.no_grad():
        for value in objective.state_dict(keep_vars=True).values():
            value += 0.1 * torch.randn(value.shape)
        wanted = objective(objective.batch(0, 0))[0]
    objective.save(tmp_path)
    fresh = build("classify", f"arm={arm}", "trainer.seed=5").eval()
    assert not torch.equal(fresh(objective.batch(0, 0))[0], wanted)
    fresh.restore(tmp_path)
    assert torch.equal(fresh(objective.batch(0, 0))[0], wanted)


@pytest.mark.parametrize("arm", ["adapter", "head"])
def test_other_classes_are_refused(build: Build, arm: str, tmp_path: Path) -> None:
    objective = build("classify", f"arm={arm}")
    objective.save(tmp_path)
    objective.labels = (*objective.labels[1:], "zither")
    with pytest.raises(CheckpointError, match=r"tells apart \[.*\], this run \[.*'zither'\]"):
        objective.restore(tmp_path)


def test_dev_is_looked_at_once_for_an_evaluation_and_what_is_saved_of_it(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = build("classify")
    parts: list[str] = []
    predict = objective.predict
    monkeypatch.setattr(objective, "predict", lambda part: parts.append(part) or predict(part))
    train(objective, objective.config.trainer, tmp_path)
    assert parts == ["dev"]


def test_a_fold_that_is_not_there_is_named(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"fold=9 was asked for; sounds has \[1, 2, 3\]"):
        build("classify", "clips.fold=9")
