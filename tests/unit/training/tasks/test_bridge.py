"""The bridge between two frozen models: what it learns, what it leaves, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import speechadapt
from speechadapt.adapters import store
from speechadapt.core.errors import ConfigError
from speechadapt.models.bridged import BridgedEncoder, read_bridge
from speechadapt.training.loop import train
from tests.tiny_tasks import base_folder, whisper_folder


@pytest.fixture(scope="module")
def objective(build: Callable[..., Any]) -> Any:
    """Return an untrained tiny bridge."""
    return build("bridge", "text_weight=0.5", "augment.speed_prob=0")


def test_the_loss_falls_and_nothing_else_is_trained(objective: Any) -> None:
    models = objective.models
    frozen = {
        "encoder": models.handle.encoder.model,
        "teacher": models.teacher.model,
        "decoder": models.decoder,
    }
    before = {
        name: {key: one.clone() for key, one in part.state_dict().items()}
        for name, part in frozen.items()
    }
    objective.train()
    batch = objective.batch(0, 0)
    optimiser = torch.optim.Adam(objective.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss, figures = objective(batch)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert figures.keys() == {"frames", "skipped", "divergence", "text"}
    for name, part in frozen.items():
        after = part.state_dict()
        assert all(torch.equal(after[key], one) for key, one in before[name].items()), name
        assert all(one.grad is None for one in part.parameters()), name


def test_both_hear_the_same_clip_at_the_same_rate(objective: Any) -> None:
    batch = objective.batch(1, 0)
    with torch.no_grad():
        student, teacher = objective._hear(batch)
    assert student.frames.shape[-1] == teacher.frames.shape[-1] == 32
    # the Conformer's filter banks drop what fills no stack at a clip's end
    assert int((student.lengths - teacher.lengths).abs().max()) <= 2


def test_what_is_left_loads_as_a_recogniser(
    build: Callable[..., Any], base: Path, tmp_path: Path
) -> None:
    objective = build("bridge")
    result = train(objective, objective.config.trainer, tmp_path)
    assert result.finished
    bridge = read_bridge(store.read(tmp_path / "last"))
    assert bridge is not None
    assert bridge.dim == 32
    recogniser = speechadapt.load(
        base_folder(base),
        adapter=tmp_path / "last",
        decoder_model=whisper_folder(base),
        language="en",
        temperature=(0.0,),
    )
    assert isinstance(recogniser.encoder, BridgedEncoder)
    corpus = objective.clean["tones"]
    clips = [signal for signal, _ in corpus]
    texts = [found.text for found in recogniser.decode_batch(clips)]
    assert texts == objective.read("pea_bridge")("tones", clips)
    report = (tmp_path / "report.json").read_text()
    assert '"teacher"' in report


def test_settings_that_follow_from_the_models_are_refused(build: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"adapter\.dim follows from the two models"):
        build("bridge", "adapter.dim=8")
    with pytest.raises(ConfigError, match=r"set frames\.layer=0"):
        build("bridge", "frames.layer=1")
    with pytest.raises(ConfigError, match="which two encoders do not share"):
        build("bridge", "augment.tempo=[0.9,1.1]")


def test_a_decoder_must_attend_to_frames(build: Callable[..., Any], base: Path) -> None:
    with pytest.raises(ConfigError, match="a bridge leads to a Whisper model"):
        build("bridge", f"decoder={base_folder(base)}")
