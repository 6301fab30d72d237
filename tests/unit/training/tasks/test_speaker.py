"""The training of speaker models: who is drawn, what is heard, what is scored and saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.models.speaker import load_speaker_model
from speechadapt.training.loop import train

Build = Callable[..., Any]


@pytest.fixture(scope="module")
def objective(build: Build) -> Any:
    """Return a tiny objective, built once."""
    return build("speaker")


def test_a_batch_is_a_function_of_its_step_and_its_pieces_are_as_long(objective: Any) -> None:
    batch, again = objective.batch(3, 0), objective.batch(3, 0)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["labels"], objective.batch(4, 0)["labels"]) or not torch.equal(
        batch["features"], objective.batch(4, 0)["features"]
    )
    assert batch["features"].shape[0] == len(batch["labels"]) == 3


def test_every_speed_of_a_speaker_is_a_voice_of_its_own(objective: Any) -> None:
    speakers = len(objective._recordings)
    assert speakers == 2
    labels = torch.cat([objective.batch(step, 0)["labels"] for step in range(24)])
    counts = Counter(labels.tolist())
    assert set(counts) == set(range(3 * speakers))
    own = sum(counts[label] for label in range(speakers)) / len(labels)
    assert own == pytest.approx(0.5, abs=0.2)
    random = np.random.default_rng(0)
    plain, fast = (
        objective._piece(0, voice, 3000, np.random.default_rng(1), (0, 0)) for voice in (0, 2)
    )
    assert len(plain) == len(fast) == 3000
    assert not np.array_equal(plain, fast)
    long = objective._piece(1, 0, 60_000, random, (0, 1))
    assert len(long) == 60_000


def test_a_step_trains_all_but_the_identity_and_lowers_the_loss(build: Build) -> None:
    objective = build("speaker", "model.dropout=0")
    batch = objective.batch(5, 0)
    trained = [one for one in objective.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(trained, 1e-4)
    losses = []
    for _ in range(3):
        loss, figures = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert 0.0 <= figures["accuracy"] <= 1.0
    still = {name for name, one in objective.named_parameters() if one.grad is None}
    assert still == {"model.classifier.weight", "model.classifier.bias"}
    assert torch.equal(objective.model.classifier.weight, torch.eye(6))


def test_the_score_is_the_mean_of_the_rates_of_the_dev_speakers(objective: Any) -> None:
    objective.eval()
    found = objective.evaluate()
    assert set(found) == {"eer", "eer_tones", "eer_tones_degraded"}
    assert found["eer"] == pytest.approx((found["eer_tones"] + found["eer_tones_degraded"]) / 2)
    assert found == objective.evaluate()


def test_what_is_saved_loads_as_a_speaker_model(build: Build, tmp_path: Path) -> None:
    objective = build("speaker")
    train(objective, objective.config.trainer, tmp_path)
    model = load_speaker_model(tmp_path / "last")
    signal = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    objective.eval()
    with torch.no_grad():
        wanted = objective._vector(signal)
    assert float(model.embed(signal) @ wanted) == pytest.approx(1.0, abs=1e-3)
    assert model._model.objective.weight.shape[1] == 2, "the voices at their own speed"


def test_settings_that_do_not_fit_are_named(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"crop_s starts at 0\.02 s, but the convolutions see"):
        build("speaker", "crop_s=[0.02,0.3]")
    with pytest.raises(ConfigError, match="as many as there are convolutions, got 2, 1 and 2"):
        build("speaker", "model.kernels=[3]")


def test_recordings_of_nobody_are_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speechadapt.training.tasks.speaker._by_speaker", lambda rows: [])
    with pytest.raises(DataError, match="the recordings name 0"):
        build("speaker")


def test_corpora_share_out_the_draws(build: Build) -> None:
    objective = build("speaker", "+batch.weights={tones: 1}")
    assert objective._chance.tolist() == [0.5, 0.5]
