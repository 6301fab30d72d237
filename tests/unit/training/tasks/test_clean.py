"""The training of feature cleaners: what is heard, what is trained, what is scored and saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from speechadapt.core.errors import ConfigError
from speechadapt.core.files import read_json
from speechadapt.encoders.source import fingerprint_module
from speechadapt.restoration.cleaner import load_cleaner
from speechadapt.training.loop import train

Build = Callable[..., Any]


def test_student_and_teacher_hear_the_same_speech_apart_from_the_damage(build: Build) -> None:
    objective = build("clean")
    batch = objective.batch(0, 0)
    assert batch["features"].shape == batch["targets"].shape
    assert not torch.equal(batch["features"], batch["targets"])
    again = objective.batch(0, 0)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    other = objective.batch(1, 0)
    assert other["features"].shape != batch["features"].shape or not torch.equal(
        other["features"], batch["features"]
    )


def test_only_the_adapter_is_trained_and_the_base_stays_byte_equal(
    build: Build, tmp_path: Path
) -> None:
    objective = build("clean", "trainer.learning_rate=0.01")
    base = objective.cleaner.encoder.model
    before = fingerprint_module(base)
    untrained = {key: value.clone() for key, value in objective.state_dict().items()}
    result = train(objective, objective.config.trainer, tmp_path)
    assert result.finished
    assert fingerprint_module(base) == before
    trained = objective.state_dict()
    assert all(key.startswith("adapter.") for key in trained)
    assert any(not torch.equal(trained[key], untrained[key]) for key in trained)
    assert len(base.encoder.layers) == 1
    report = read_json(tmp_path / "report.json")
    assert report["layer"] == 1
    assert {"relative_l1", "variance_ratio", "loss"} <= report["dev"]["degraded"].keys()
    loaded = load_cleaner(tmp_path / "last", Path(objective.config.base))
    for key, value in loaded.handle.module.state_dict().items():
        assert torch.equal(value, trained[f"adapter.{key}"])


def test_an_untrained_cleaner_scores_as_the_damage_does(build: Build) -> None:
    objective = build("clean")
    objective.eval()
    scores = objective.evaluate()
    assert scores == objective.scores(cleaned=False)
    assert scores["relative_l1"] > 0.0
    assert scores["loss"] == pytest.approx(
        scores["absolute"] + scores["squared"] + scores["convergence"], rel=1e-4
    )


def test_low_rank_adapters_take_the_same_place(build: Build) -> None:
    objective = build("clean", "method=lora", "roles=[ffn2.down]", "adapter.rank=2")
    assert [site.role for site in objective.cleaner.handle.sites] == ["layer.0.ffn2.down"]
    loss, _ = objective(objective.batch(0, 0))
    loss.backward()
    assert any(one.grad is not None and one.grad.any() for one in objective.parameters())


FRONT = ("front.kind=convolution", "front.width=8", "front.layers=1", "front.kernel=3")


def test_a_front_is_trained_beside_the_adapter_and_the_clean_path_has_none(
    build: Build, tmp_path: Path
) -> None:
    objective, plain = build("clean", *FRONT), build("clean")
    batch, usual = objective.batch(0, 0), plain.batch(0, 0)
    assert torch.equal(batch["targets"], usual["targets"])
    assert not torch.equal(batch["features"], usual["features"])
    degraded = objective.scores(cleaned=False)
    assert degraded == plain.scores(cleaned=False)
    assert objective.scores(cleaned=True)["relative_l1"] == pytest.approx(
        degraded["relative_l1"], abs=0.02
    )
    assert objective.groups()["front."].rate == 0.4
    assert plain.groups() == {}
    base = fingerprint_module(objective.cleaner.encoder.model)
    train(objective, objective.config.trainer, tmp_path)
    assert fingerprint_module(objective.cleaner.encoder.model) == base
    assert {key.partition(".")[0] for key in objective.state_dict()} == {"adapter", "front"}
    assert read_json(tmp_path / "report.json")["front_parameters"] > 0
    loaded = load_cleaner(tmp_path / "last", Path(objective.config.base))
    for key, value in loaded.front.state_dict().items():
        assert torch.equal(value, objective.state_dict()[f"front.{key}"])
    assert loaded.front.out.weight.any()


def test_a_run_with_a_front_goes_on_bit_for_bit(build: Build, tmp_path: Path) -> None:
    whole, parts = build("clean", *FRONT), build("clean", *FRONT)
    train(whole, whole.config.trainer, tmp_path / "whole")
    trainer = parts.config.trainer
    first = train(parts, replace(trainer, sitting_s=1e-9), tmp_path / "parts")
    assert not first.finished
    again = build("clean", *FRONT)
    assert train(again, trainer, tmp_path / "parts").finished
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_settings_are_checked_together(build: Build) -> None:
    with pytest.raises(ConfigError, match="no degradation 'mipher'"):
        build("clean", "damage.preset=mipher")
    with pytest.raises(ConfigError, match=r"damage\.changes\.noise_prob must be between 0 and 1"):
        build("clean", "+damage.changes.noise_prob=3")
    with pytest.raises(ConfigError, match=r"front\.kernel must be odd"):
        build("clean", "front.kernel=4")
    with pytest.raises(ConfigError, match="layer 7 was asked for"):
        build("clean", "layer=7")
