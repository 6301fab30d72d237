from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ASTModel

from speechadapt.training.speech import SpeechRow


@pytest.fixture(scope="module")
def objective(build: Callable[..., Any]) -> Any:
    """Return a tiny objective, built once."""
    return build("masked_patch")


def test_patches_are_numbered_as_the_model_numbers_them(objective: Any) -> None:
    batch = objective.batch(0, 0)
    patches = objective._patches(batch["features"])
    projection = objective.model.embeddings.patch_embeddings.projection
    flat = projection.weight.flatten(1)
    ours = patches @ flat.T + projection.bias
    theirs = objective.model.embeddings.patch_embeddings(batch["features"])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_hidden_patches_do_not_reach_the_encoder(objective: Any) -> None:
    objective.eval()
    batch = objective.batch(0, 0)
    order = batch["order"]
    shown = order.shape[1] - round(order.shape[1] * objective.config.masking.hidden)
    visible = order[:, :shown]
    before = objective._encode(batch["features"], visible)
    noisy = batch["features"].clone()
    side = objective.config.model.patch
    across = noisy.shape[1] // side
    for row, hidden in enumerate(order[:, shown:].tolist()):
        for place in hidden:
            band, frame = divmod(place, across)
            noisy[row, frame * side : (frame + 1) * side, band * side : (band + 1) * side] += 1.0
    torch.testing.assert_close(objective._encode(noisy, visible), before)
    assert not torch.equal(noisy, batch["features"])


def test_a_step_reaches_the_whole_encoder_and_lowers_the_loss(objective: Any) -> None:
    objective.train()
    batch = objective.batch(0, 0)
    optimizer = torch.optim.AdamW(objective.parameters(), 0.01)
    losses = []
    for _ in range(8):
        loss, figures = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert 0 < figures["real"] <= 1
    assert all(part.grad is not None for part in objective.model.parameters())


def test_what_is_saved_is_the_encoder_alone(objective: Any, tmp_path: Path) -> None:
    objective.save(tmp_path)
    loaded = ASTModel.from_pretrained(tmp_path, use_safetensors=True)
    for name, part in objective.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], part.half())


def test_a_long_recording_is_looked_at_all_over_only_where_that_was_asked_for(
    build: Callable[..., Any],
) -> None:
    signal = np.arange(30_000, dtype=np.float32)
    for crop, several in (("start", False), ("random", True)):
        objective = build("masked_patch", f"crop={crop}")
        rows = [SpeechRow(signal, "", np.random.default_rng(seed)) for seed in range(9)]
        starts = {float(objective._crop(row)[0]) for row in rows}
        assert (len(starts) > 1) == several
        assert all(30_000 - start >= objective._window for start in starts)
        short = SpeechRow(signal[: objective._window], "", np.random.default_rng(0))
        assert len(objective._crop(short)) == objective._window
